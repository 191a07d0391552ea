"""The stop of a real process: under load, with delays between its steps, with a corruption in the window, with what hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stop_rounds import SHOP, Shop, is_ready, rounds

if TYPE_CHECKING:
    from collections.abc import Iterator

PARALLEL = 6


def gone(pid: int) -> bool:
    """Whether a process has ended, within some seconds; what nobody has reaped yet has."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.long)])
def test_stops_under_load_say_nothing_above_info(count: int) -> None:
    """`bench/stop.py` measures how soon readiness is false."""
    done = rounds(count, parallel=PARALLEL, delay=True)
    assert Counter(each.code for each in done) == {0: count}
    assert [line for each in done for line in each.lines("WARNING", "ERROR", "CRITICAL")] == []
    assert all("flushed" in each.out for each in done)


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.long)])
def test_a_corruption_in_the_window_of_the_stop_is_one_critical_line_each_time(count: int) -> None:
    done = rounds(count, parallel=PARALLEL, delay=True, corrupt=True)
    assert Counter(each.code for each in done) == {74: count}
    assert Counter(len(each.lines("CRITICAL")) for each in done) == {1: count}
    assert all("page 7 is corrupt" in each.lines("CRITICAL")[0] for each in done)
    assert all("flushed" in each.out for each in done), "a fault of one keeps nobody else from its flush"


@pytest.mark.parametrize(
    ("hang", "named"),
    [
        ("deaf", "not finished within 2 s: deaf (drain, since"),
        ("blocking", "the main thread is in blocking (stopping_shop.py:"),
        ("thread", "in stuck (stopping_shop.py:"),
        ("flush", "not flushed: shop/timeline flush never_flushed"),
    ],
)
def test_what_hangs_is_named_and_the_process_leaves_at_its_deadline(tmp_path: Path, hang: str, named: str) -> None:
    """How long after its deadline, `bench/stop.py` measures."""
    report = tmp_path / "report.json"
    shop = Shop(hang=hang, deadline_s=2.0, report=str(report))
    shop.until("shop started")
    time.sleep(0.2)
    ended = shop.end(shop.signal(signal.SIGTERM))
    assert ended.code == 75, ended.said
    assert named in ended.said
    if hang in {"deaf", "flush"}:
        told = json.loads(report.read_text())
        assert told["exit_code"] == 75
        assert told["unfinished"][0]["service"] == "shop/timeline"
        assert "stopping_shop.py" in told["unfinished"][0]["stack"][-1]


@pytest.mark.short
def test_term_twice_hurries() -> None:
    shop = Shop(long_s=60.0, deadline_s=30.0)
    shop.until("^working")
    signalled_at = shop.signal(signal.SIGTERM)
    shop.until("shop stops within")
    shop.signal(signal.SIGTERM)
    ended = shop.end(signalled_at)
    assert ended.code == 0, ended.said
    assert "SIGTERM again, hurrying" in ended.said
    assert "the drain was cut short by a second signal" in ended.said
    assert "flushed" in ended.out, "only the drain is skipped"
    assert "worked" not in ended.out


@pytest.mark.short
@pytest.mark.parametrize("busy", ["", "blocking"])
def test_quit_leaves_at_once_with_its_own_code(busy: str) -> None:
    shop = Shop(long_s=60.0, deadline_s=30.0, hang=busy, offspring=True)
    child = int(shop.until(r"^child (\d+)").group(1))
    shop.until("^working")
    signalled_at = shop.signal(signal.SIGTERM)
    shop.until("shop stops within")
    shop.signal(signal.SIGQUIT)
    ended = shop.end(signalled_at)
    assert ended.code == 131, ended.said
    assert "left at once on SIGQUIT" in ended.said
    assert "flushed" not in ended.out
    assert gone(child)


@pytest.mark.short
def test_int_while_it_starts_is_not_lost() -> None:
    shop = Shop(slow_start_s=60.0)
    shop.until("^starting")
    ended = shop.end(shop.signal(signal.SIGINT))
    assert ended.code == 0, ended.said
    assert "shop stopped in" in ended.said
    assert "SIGINT" in ended.said
    assert ended.lines("WARNING", "ERROR", "CRITICAL") == []
    assert "flushed" not in ended.out, "what never started has nothing to flush"


@pytest.mark.short
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_module_is_imported_ends_the_command(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    argv = [sys.executable, "-m", "outlast", "up", "slow:service"]
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said == f"outlast: {number.name} before the service had started: nothing to stop\n"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["/bin/umount", "--lazy", place], check=True)


@pytest.mark.root
def test_term_while_the_disk_is_full_says_what_was_not_flushed(full_disk: Path) -> None:
    shop = Shop(full=str(full_disk / "data"), report=str(full_disk / "report.json"))
    shop.until("shop started")
    ended = shop.end(shop.signal(signal.SIGTERM))
    assert ended.code == 75
    assert "not flushed: shop flush flush (ENOSPC)" in ended.said
    assert "the report could not be written" in ended.said
    assert sorted(path.name for path in full_disk.iterdir()) == ["data"], "a report is whole or not there"


@pytest.mark.short
def test_a_process_that_is_stopped_and_continued_in_its_drain_gets_its_time() -> None:
    shop = Shop(long_s=2.0, deadline_s=4.0)
    shop.until("^working")
    signalled_at = shop.signal(signal.SIGTERM)
    shop.until("shop stops within")
    shop.signal(signal.SIGSTOP)
    time.sleep(5.0)
    shop.signal(signal.SIGCONT)
    ended = shop.end(signalled_at)
    assert ended.code == 0, ended.said
    assert ended.lines("WARNING", "ERROR", "CRITICAL") == []
    assert "worked" in ended.out
    assert "flushed" in ended.out


@pytest.mark.short
def test_no_child_process_survives() -> None:
    shop = Shop(offspring=True, deadline_s=5.0)
    child = int(shop.until(r"^child (\d+)").group(1))
    shop.until("shop started")
    ended = shop.end(shop.signal(signal.SIGTERM))
    assert ended.code == 75, "one that ignores SIGTERM had to be killed"
    assert f"(pid {child})" in ended.said
    assert gone(child)


@pytest.mark.short
def test_two_thousand_children_are_few_lines() -> None:
    shop = Shop(children=2000)
    shop.until("shop started")
    ended = shop.end(shop.signal(signal.SIGTERM))
    assert ended.code == 0, ended.said
    assert len(ended.said.splitlines()) < 10


@pytest.mark.short
@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_service_manager_is_told(tmp_path: Path, kind: str) -> None:
    address = f"\0outlast-{os.getpid()}" if kind == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(60)
        env = {"NOTIFY_SOCKET": address.replace("\0", "@"), "WATCHDOG_USEC": "200000"}
        shop = Shop(env=env)
        heard = b""

        def until(word: bytes) -> None:
            nonlocal heard
            while word not in heard:
                heard += manager.recv(4096) + b"\n"

        until(b"READY=1")
        until(b"WATCHDOG=1")
        signalled_at = shop.signal(signal.SIGTERM)
        until(b"STOPPING=1")
        until(b"EXTEND_TIMEOUT_USEC=")
        assert shop.end(signalled_at).code == 0
        assert heard.index(b"READY=1") < heard.index(b"STOPPING=1")


def test_the_sequence_of_kubernetes() -> None:
    """A preStop that sleeps, while the endpoints forget the pod: it is ready and at work. Then TERM; KILL would come later."""
    shop = Shop(listen="127.0.0.1:0", long_s=0.5, deadline_s=5.0)
    port = int(shop.until(r"health on port (\d+)").group(1))
    shop.until("shop started")
    before = len(shop.out)
    time.sleep(2.0)
    assert is_ready(port), "the preStop hook changes nothing in the process"
    assert len(shop.out) > before, "and it takes in work"
    signalled_at = shop.signal(signal.SIGTERM)
    while is_ready(port):
        pass
    ended = shop.end(signalled_at)
    assert ended.code == 0, ended.said


def test_usage_of_up(tmp_path: Path) -> None:
    def up(*arguments: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "outlast", "up", "stopping_shop:service", *arguments]
        done = subprocess.run(argv, cwd=SHOP.parent, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    code, said = up("--listen", "everywhere")
    assert code == 78
    assert "everywhere" in said
    assert "Traceback" not in said
    taken: Any
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = up("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 78
    assert "cannot listen on" in said
