"""`outlast logs fold` as a process among processes: producers that die, readers that leave, disks that are full."""

from __future__ import annotations

import gzip
import os
import re
import select
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outlast._programs.fold.output import Output
from outlast._programs.fold.pump import Pump
from outlast._programs.fold.source import Descriptor
from outlast.logs.text import TextFold
from outlast.logs.text._safely import Safely

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(__file__).parents[3] / "src"
COMMAND = [sys.executable, "-m", "outlast", "logs", "fold"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SRC)}
LIMIT_S = 60.0
MEMORY_KB_MAX = 100_000
SUMMARY = re.compile(rb"(?:outlast: |\| )(\d+) more")


class Folding:
    """A running fold with pipes to all its ends."""

    def __init__(self, *arguments: str | Path, **options: object) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=ENVIRONMENT,
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0, **options},  # type: ignore[call-overload]
        )
        self.out = b""

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.process.stdin.fileno(), view) :]

    def until(self, pattern: bytes) -> bytes:
        """Read the output until it holds the pattern."""
        end = time.monotonic() + LIMIT_S
        while not re.search(pattern, self.out):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.out!r}"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, f"no {pattern!r} in {self.out!r}"
            self.out += data
        return self.out

    def finish(self) -> tuple[bytes, bytes, int]:
        """Close the input and give all of the output, stderr and the exit code."""
        out, errors = self.process.communicate(timeout=LIMIT_S)
        return self.out + (out or b""), errors, self.process.returncode


@pytest.fixture
def start() -> Iterator[type[Folding]]:
    """Make folds that are gone when the test is over."""
    started: list[Folding] = []

    class Started(Folding):
        def __init__(self, *arguments: str | Path, **options: object) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    yield Started
    for folding in started:
        if folding.process.poll() is None:
            folding.process.kill()
        folding.process.wait()
        for stream in (folding.process.stdin, folding.process.stdout, folding.process.stderr):
            if stream is not None:
                stream.close()


def counted(out: bytes) -> int:
    """Shown and summarised lines together."""
    lines = out.splitlines()
    summaries = [line for line in lines if line.startswith(b"outlast: ")]
    return len(lines) - len(summaries) + sum(int(many) for line in summaries for many in SUMMARY.findall(line))


@pytest.mark.short
def test_the_end_of_input_gives_everything_and_exit_code_0(start: type[Folding]) -> None:
    folding = start("--stats", "--report")
    folding.send(b"".join(b"down after %d ms\n" % number for number in range(10_000)) + b"other\nlast without newline")
    out, errors, code = folding.finish()
    assert code == 0
    assert out.splitlines()[:3] == [b"down after 0 ms", b"other", b"last without newline"]
    assert counted(out) == 10_002
    assert b"10002 records" in errors
    assert b"9999" in errors.split(b"\n")[2]


def test_nothing_is_lost_when_the_producer_is_killed(start: type[Folding]) -> None:
    program = (
        "import os, signal\n"
        "for number in range(5000): os.write(1, b'connect failed: [Errno 111] after %d ms\\n' % number)\n"
        "os.write(1, b'connect failed: [Errno 113]\\nlast words')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as producer:
        folding = start(stdin=producer.stdout)
        out, errors, code = folding.finish()
    assert (code, errors, producer.returncode) == (0, b"", -signal.SIGKILL)
    assert b"connect failed: [Errno 113]\nlast words\n" in out
    assert counted(out) == 5002


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_makes_it_tell_what_is_pending(start: type[Folding], number: signal.Signals) -> None:
    folding = start()
    folding.send(b"a 1\n" * 1000 + b"b\n")
    folding.until(rb"b\n")
    folding.send(b"a 1\n" * 500)
    folding.process.send_signal(number)
    folding.send(b"its last words\n")
    folding.process.stdin.close()
    folding.process.stdin = None
    out, errors, code = folding.finish()
    assert (code, errors) == (128 + number, b"")
    assert b"its last words\n" in out
    assert counted(out) == 1502


def test_a_signal_ends_it_though_the_producer_goes_on(start: type[Folding]) -> None:
    folding = start()
    folding.send(b"a 1\n" * 10)
    folding.until(rb"a 1\n")
    folding.process.terminate()
    assert b"9 more" in folding.until(rb"9 more")
    assert folding.process.wait(LIMIT_S) == 128 + signal.SIGTERM


def test_a_second_signal_ends_it_though_nobody_reads(start: type[Folding]) -> None:
    folding = start("--burst", "1000000")
    folding.send(b"nobody reads this\n" * 10)
    folding.until(rb"nobody")
    os.set_blocking(folding.process.stdin.fileno(), False)
    with pytest.raises(BlockingIOError):
        folding.send(b"nobody reads this\n" * 1_000_000)
    folding.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        folding.process.wait(0.5)
    folding.process.send_signal(signal.SIGTERM)
    assert folding.process.wait(LIMIT_S) == 128 + signal.SIGTERM


@pytest.mark.parametrize("talking", [True, False])
def test_a_reader_that_leaves_ends_it_quietly(start: type[Folding], *, talking: bool) -> None:
    folding = start()
    folding.send(b"first\nsecond\n")
    folding.until(rb"first\n")
    folding.process.stdout.close()
    folding.process.stdout = None
    if talking:
        folding.send(b"third\nfourth\n")
    assert folding.process.wait(LIMIT_S) == 128 + signal.SIGPIPE
    assert folding.process.stderr.read() == b""


def test_reminders_need_no_next_line(start: type[Folding]) -> None:
    folding = start("--window", "200ms", "--quiet-after", "1s")
    folding.send(b"down 1\n" * 100)
    folding.until(rb"outlast: 99 more until ")
    folding.until(rb"outlast: quiet since ")


def test_a_line_of_100_mb_and_junk_pass_in_bounded_memory(start: type[Folding]) -> None:
    script = "head -c 100000000 /dev/zero | tr '\\0' x; echo; head -c 5000000 /dev/urandom; echo end"
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE) as producer:
        folding = start(stdin=producer.stdout)
        size = memory_kb = 0
        status = Path(f"/proc/{folding.process.pid}/status")
        while data := os.read(folding.process.stdout.fileno(), 1 << 16):
            size += len(data)
            # Not from wait4: that counts what this process was before exec.
            high_water = re.search(r"VmHWM:\s*(\d+)", status.read_text(encoding="ascii"))
            memory_kb = max(memory_kb, int(high_water[1]) if high_water else 0)
        _, errors, code = folding.finish()
    assert (code, errors) == (0, b"")
    assert size >= 104_500_000
    assert 0 < memory_kb < MEMORY_KB_MAX


def test_the_spool_and_the_output_together_are_the_input(start: type[Folding], tmp_path: Path) -> None:
    lines = [b"down after %d ms" % number if number % 7 else b"table t%d" % number for number in range(20_000)]
    folding = start("--spool", tmp_path / "spool")
    folding.send(b"\n".join(lines) + b"\n")
    out, errors, code = folding.finish()
    assert (code, errors) == (0, b"")
    shown = [line for line in out.splitlines() if not line.startswith(b"outlast: ")]
    kept = b"".join(gzip.decompress(path.read_bytes()) for path in sorted((tmp_path / "spool").iterdir())).splitlines()
    assert sorted(shown + kept) == sorted(lines)


def test_the_spool_survives_that_the_fold_is_killed(start: type[Folding], tmp_path: Path) -> None:
    folding = start("--spool", tmp_path)
    folding.send(b"a 1\n" * 100 + b"b\n")
    end = time.monotonic() + LIMIT_S
    kept = b""
    while kept.count(b"a 1\n") < 99 and time.monotonic() < end:
        time.sleep(0.05)
        kept = b"".join(zlib.decompressobj(31).decompress(path.read_bytes()) for path in tmp_path.iterdir())
    folding.process.kill()
    assert kept == b"a 1\n" * 99


@pytest.mark.root
def test_a_full_disk_under_the_spool_is_one_line_on_stderr(start: type[Folding], tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, tmp_path, *COMMAND, "--spool", tmp_path]
    noise = [b"down %s\n" % os.urandom(600).hex().encode() for _ in range(2000)]
    done = subprocess.run(
        command, env=ENVIRONMENT, input=b"".join(noise) + b"other\n", capture_output=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 0
    assert counted(done.stdout) == 2001
    assert b"\nother\n" in done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert b"No space left on device; folded records are only counted" in done.stderr


def test_a_full_disk_under_the_output_does_not_stop_the_producer(start: type[Folding]) -> None:
    with Path("/dev/full").open("wb") as full:
        folding = start("--stats", stdout=full)
    folding.send(b"a\nb\n" * 1000)
    _, errors, code = folding.finish()
    assert code == 74
    assert b"writing failed: No space left on device" in errors
    assert b"2000 records" in errors


def test_a_followed_file_is_followed_through_truncation_and_rotation(start: type[Folding], tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"table one\n")
    folding = start("--follow", path)
    folding.until(rb"table one\n")
    with path.open("ab") as file:
        file.write(b"table two\n")
    folding.until(rb"table two\n")
    path.rename(tmp_path / "app.log.1")
    with (tmp_path / "app.log.1").open("ab") as file:
        file.write(b"table three\n")
    path.write_bytes(b"table four\n")
    folding.until(rb"table three\ntable four\n")
    path.write_bytes(b"table 5\n")
    folding.until(rb"table 5\n")
    folding.process.terminate()
    assert folding.process.wait(LIMIT_S) == 128 + signal.SIGTERM


def test_what_cannot_be_read_is_said_in_one_line(start: type[Folding], tmp_path: Path) -> None:
    folding = start(tmp_path / "none")
    _, errors, code = folding.finish()
    assert code == 66
    assert errors == f"outlast: logs fold: cannot read {tmp_path}/none: No such file or directory\n".encode()


def test_what_fails_while_it_is_read_is_said_in_one_line(start: type[Folding], tmp_path: Path) -> None:
    folding = start(tmp_path)
    assert folding.finish() == (b"", b"outlast: logs fold: reading failed: Is a directory\n", 74)


def test_without_an_output_it_does_not_begin() -> None:
    command = ["/bin/sh", "-c", 'exec "$0" "$@" >&-', *COMMAND]
    done = subprocess.run(command, env=ENVIRONMENT, input=b"a\n", stderr=subprocess.PIPE, check=False, timeout=LIMIT_S)
    assert done.returncode == 64
    assert done.stderr == b"outlast: logs fold: standard output is closed; open it, or send it to /dev/null\n"


def test_if_the_fold_fails_everything_passes_unharmed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = [b"line %d\n" % (number % 5) for number in range(200_000)]
    source = tmp_path / "in"
    source.write_bytes(b"".join(lines))
    target = tmp_path / "out"
    said: list[str] = []
    feed = TextFold.feed
    calls = 0

    def failing(self: TextFold, data: bytes, now: float) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ZeroDivisionError("of all things")
        return feed(self, data, now)

    monkeypatch.setattr(TextFold, "feed", failing)
    with source.open("rb") as reading, target.open("wb") as writing:
        pump = Pump(
            Descriptor(reading.fileno()), Safely(TextFold(), said.append), Output(writing.fileno(), said.append), said.append
        )
        assert pump.run(writing.fileno()) == 0
    out = target.read_bytes()
    assert counted(out) == len(lines)
    assert out.count(b"\nline ") > 100_000
    assert said == ["folding failed, everything is passed on as it comes: ZeroDivisionError: of all things"]
