"""Durable appends a second over HTTP, and many readers of one stream: our node against a bare handler and `rakaia-streams`.

    python bench/streams_http.py                          # all of it, some two minutes, below the temporary directory
    python bench/streams_http.py --directory /mnt/data    # on that disk
    python bench/streams_http.py --only readers --json

**appends**: 1 KiB each from 32 connections, one request at a time on each, by clients in a process of their own. Our node, whose
appends are on the disk when they are answered, and a handler of starlette on plain uvicorn, that reads the body and answers 204,
take turns in 20 rounds (`--rounds`), so that what disturbs one disturbs both; then the node and `rakaia-streams` on its store in
files, which syncs each append too: what it leaves to the disk would be in the turns of the others. A ratio is the median of the
rounds, and a promise is compared with the lower end of its 95 % interval. Printed as well: the node when every connection is a
producer with epoch and sequence; processor time of the server and of the clients, a request; and what a sync took meanwhile.
**readers**: 1,000 event streams of one stream of our node, to which 10 events of 200 bytes a second are appended. Each event has
to come to each reader once and in order. Promised: the resident memory of the server at its most above that before
the first reader, and the 99th percentile of the time from the acknowledgement of an append until a reader had it. That from when
the append was due, which has its way to the disk in it, is printed.

The exit code is 1 when a promise is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Self

from _medians import median_interval
from _overload_process import listening, processor_s
from streams import Report, disk_of

if TYPE_CHECKING:
    from types import TracebackType

    from _overload_process import Running

HERE: Final = Path(__file__).resolve().parent
CONNECTIONS: Final = 32
RECORD_BYTES: Final = 1024
TURN_S: Final = 0.5
SYNCS: Final = 10
READERS: Final = 1_000
EVENTS_PER_S: Final = 10.0
EVENT_BYTES: Final = 200
PATH: Final = "/v1/stream/bench"
PROMISES: Final = {"bare": 0.4, "rakaia": 5.0, "memory_mib": 64.0, "delay_ms": 200.0}


class Load:
    """The process with the clients."""

    def __enter__(self) -> Self:
        command = [sys.executable, str(HERE / "_streams_http_load.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def do(self, what: str, **given: object) -> dict[str, Any]:
        """Return the outcome of one command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **given}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit("bench: the clients have ended; what they said of it stands above")
        found: dict[str, Any] = json.loads(line)
        return found

    def make(self, port: int, content_type: str) -> None:
        """Create the stream of the bench."""
        found = self.do("ask", port=port, method="PUT", path=PATH, headers={"Content-Type": content_type})
        assert found["status"] in {201, 204}, f"PUT {PATH} was answered {found['status']}"


class Arm:
    """A server, and what its turns have come to."""

    def __init__(self, name: str, running: Running, *, producers: bool = False) -> None:
        self.name = name
        self.rates: list[float] = []
        self.server_us: list[float] = []
        self.clients_us: list[float] = []
        self._running = running
        self._producers = producers

    def forget(self) -> None:
        """Begin again."""
        for values in (self.rates, self.server_us, self.clients_us):
            values.clear()

    def turn(self, load: Load, number: int) -> None:
        """Append for a while."""
        spent_s = processor_s(self._running.pid)
        producers = f"turn-{number}" if self._producers else None
        found = load.do(
            "append",
            port=self._running.port,
            path=PATH,
            seconds=TURN_S,
            connections=CONNECTIONS,
            size=RECORD_BYTES,
            producers=producers,
        )
        count = found["count"]
        self.rates.append(count / found["took_s"])
        self.server_us.append(1e6 * (processor_s(self._running.pid) - spent_s) / count)
        self.clients_us.append(1e6 * found["spent_s"] / count)


def appends(folder: Path, rounds: int, report: Report) -> None:
    print(f"\nappends of {RECORD_BYTES} bytes from {CONNECTIONS} connections")
    syncs_s: list[float] = []
    for theirs in ("bare", "rakaia"):
        with ExitStack() as stack:
            load = stack.enter_context(Load())
            running = {}
            for name in (theirs, "outlast"):
                directory = folder / f"{name} beside {theirs}"
                running[name] = stack.enter_context(listening("_streams_http_server.py", name, "--directory", str(directory)))
                load.make(running[name].port, "application/octet-stream")
            arms = [Arm(theirs, running[theirs]), Arm("outlast", running["outlast"])]
            arms.append(Arm("outlast, as producers", running["outlast"], producers=True))
            for number in range(rounds + 1):
                syncs_s += sync_times_s(folder)
                for arm in arms if number % 2 else reversed(arms):
                    arm.turn(load, number)
                if not number:
                    # What was loaded and made for the first time.
                    for arm in arms:
                        arm.forget()
        compare(*arms, report)
    middle, most = median(syncs_s), max(syncs_s)
    report.figure("a write of 1 KiB and its sync", f"{1000 * middle:.2f} ms, at most {1000 * most:.0f} ms", middle)


def sync_times_s(folder: Path) -> list[float]:
    """Return the seconds of a few writes that are synced, on the disk of the bench."""
    found = []
    with (folder / "synced").open("ab", buffering=0) as file:
        for _ in range(SYNCS):
            began_s = time.perf_counter()
            file.write(bytes(RECORD_BYTES))
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - began_s)
    return found


def compare(theirs: Arm, ours: Arm, producers: Arm, report: Report) -> None:
    """Print what each arm did beside another server, and compare."""
    for arm in (theirs, ours, producers):
        name = arm.name if arm is theirs else f"{arm.name}, beside {theirs.name}"
        us = f"{median(arm.server_us):6.0f} µs of the server, {median(arm.clients_us):4.0f} µs of the clients a request"
        report.figure(name, f"{median(arm.rates):>9,.0f} /s   {us}", median(arm.rates))
        report.figures[f"{name}, server_us"] = median(arm.server_us)
    for arm in (ours, producers):
        middle, low, high = median_interval([mine / other for mine, other in zip(arm.rates, theirs.rates, strict=True)])
        text = f"{middle:.2f} × ({low:.2f} to {high:.2f})"
        name = f"{arm.name}, against {theirs.name}"
        if arm is producers:
            report.figure(name, text, middle)
        else:
            report.promise(name, f"{text}, at least {PROMISES[theirs.name]}", holds=low >= PROMISES[theirs.name])


def most_resident_mib(pid: int) -> float:
    """Return the most memory that the process held since `forget_most`."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel says nothing about the most memory of a process")


def forget_most(pid: int) -> None:
    """Let the kernel begin again with the most memory of a process: proc(5), clear_refs."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def readers(folder: Path, seconds: float, report: Report) -> None:
    print(f"\n{READERS:,} readers of one stream, {EVENTS_PER_S:g} events a second")
    with Load() as load, listening("_streams_http_server.py", "outlast", "--directory", str(folder / "outlast")) as running:
        load.make(running.port, "application/json")
        given = {"port": running.port, "path": PATH, "query": "offset=now&live=sse", "per_s": EVENTS_PER_S, "size": EVENT_BYTES}
        # What is loaded and made for the first time.
        load.do("follow", readers=1, count=20, **given)
        forget_most(running.pid)
        before_mib = running.resident_mib
        spent_s = processor_s(running.pid)
        count = round(seconds * EVENTS_PER_S)
        found = load.do("follow", readers=READERS, count=count, **given)
        spent_s = processor_s(running.pid) - spent_s
        more_mib = most_resident_mib(running.pid) - before_mib
    sent, acknowledged = found["from sent"], found["from acknowledged"]
    server_us, clients_us = (1e6 * spent / (count * READERS) for spent in (spent_s, found["spent_s"]))
    report.figure("an event to a reader", f"{server_us:.1f} µs of the server, {clients_us:.1f} µs of the clients", server_us)
    for name, values in (("read, from when it was due", sent), ("read, from its acknowledgement", acknowledged)):
        text = "   ".join(f"{what} {1000 * value:.0f} ms" for what, value in zip(("median", "99 %", "most"), values, strict=True))
        report.figure(name, text, values)
    delay_ms, limit = 1000 * acknowledged[1], PROMISES["delay_ms"]
    report.promise("99th percentile", f"{delay_ms:.0f} ms, at most {limit:.0f}", holds=delay_ms <= limit)
    limit = PROMISES["memory_mib"]
    text = f"{more_mib:.1f} MiB above {before_mib:.1f}, at most {limit:.0f}"
    report.promise("resident memory", text, holds=more_mib <= limit)


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()), help="where the streams are, and so the disk"
    )
    parser.add_argument("--rounds", type=int, default=20, help="rounds in which the servers take turns (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the readers follow (default: %(default)s)")
    parser.add_argument("--only", choices=["appends", "readers"], help="one part")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON at the end")
    options = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="outlast-bench-", dir=options.directory) as directory:
        root = Path(directory).resolve()
        print(f"disk: {disk_of(root)}\nPython {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
        for name, part, size in (("appends", appends, options.rounds), ("readers", readers, options.seconds)):
            if options.only in (None, name):
                (root / name).mkdir()
                part(root / name, size, report)
    print(f"\n{'every promise holds' if not report.missed else 'missed: ' + '; '.join(report.missed)}")
    if options.json:
        print(json.dumps(report.figures))
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
