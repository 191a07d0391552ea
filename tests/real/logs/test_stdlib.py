"""Folding with its timer, with threads, across a fork and at exit; the writer in front of a pipe and a full disk."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from outlast._core.fold import FoldPolicy
from outlast.logs._writer import LogWriter, QueuedHandler
from outlast.logs.stdlib import fold

pytestmark = [pytest.mark.short]

SOURCE = Path(__file__).parents[3] / "src"
QUICK = FoldPolicy(reminder_first_s=0.1, reminder_max_s=0.2, quiet_s=0.5)


def run(program: str) -> str:
    """What a program of its own writes to standard error."""
    done = subprocess.run(
        # Python 3.12 warns of a fork beside threads, which is what these programs are about.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_reminders_come_by_timer_and_the_end_too(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("timed")
    with fold(policy=QUICK) as handle:
        for _ in range(50):
            logger.error("away")
        deadline = time.monotonic() + 30.0
        while len(handle.folder.fold) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threading.active_count() >= 2
    said = [record.__dict__["outlast"]["outlast.what"] for record in caplog.records if "outlast" in record.__dict__]
    assert said == ["reminder", "quiet"]
    assert handle.totals.summarised == 49
    assert not [thread for thread in threading.enumerate() if thread.name == "outlast-log-fold"]


def test_what_is_pending_is_written_at_exit() -> None:
    said = run("""
        import logging
        from outlast.logs.stdlib import fold
        fold()
        for _ in range(1000):
            logging.error("away")
    """)
    first, last = said.splitlines()
    assert first == "ERROR:root:away"
    assert last.startswith("ERROR:root:away [so far: 999 more, 1000 in ")


def test_a_child_says_what_is_its_own_and_the_parent_the_rest() -> None:
    said = run("""
        import logging, os
        from outlast.logs.stdlib import fold
        logging.basicConfig(format="%(process)d %(message)s")
        fold()
        for _ in range(10):
            logging.error("away")
        child = os.fork()
        for _ in range(5):
            logging.error("away")
        if child == 0:
            raise SystemExit
        os.waitpid(child, 0)
    """)
    lines = [line.split(" ", 1) for line in said.splitlines()]
    assert len({process for process, _ in lines}) == 2
    texts = [text.split(",")[0] for _, text in lines]
    assert texts == ["away", "away", "away [so far: 4 more", "away [so far: 14 more"]


def test_threads_that_log_while_others_fork_find_a_free_lock() -> None:
    run("""
        import logging, os, threading
        from outlast.logs.stdlib import fold
        logging.getLogger().addHandler(logging.NullHandler())
        fold()
        stop = threading.Event()
        def work():
            while not stop.is_set():
                logging.error("away")
        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for _ in range(30):
            child = os.fork()
            if child == 0:
                logging.error("away")
                logging.error("gone")
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
    """)


def test_a_signal_that_raises_leaves_no_lock_behind() -> None:
    run("""
        import logging, signal, threading
        from outlast.logs.stdlib import fold
        logging.getLogger().addHandler(logging.NullHandler())
        handle = fold()
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                while True:
                    logging.error("away")
            except KeyboardInterrupt:
                pass
        other = threading.Thread(target=logging.error, args=("away",), daemon=True)
        other.start()
        other.join(60)
        assert not other.is_alive(), "the lock is held"
    """)


def test_many_threads_count_exactly(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("threads")
    policy = FoldPolicy(burst=2, reminder_first_s=0.01, reminder_max_s=0.02, quiet_s=0.03, keys_max=8)
    names = "abcdefghijkl"
    with fold(policy=policy) as handle:

        def work() -> None:
            for number in range(20_000):
                logger.error("away %s", names[number // 7 % len(names)])

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert handle.totals.seen == 80_000
    totals = handle.totals
    assert totals.pending == 0
    summaries = [record.__dict__["outlast"] for record in caplog.records if "outlast" in record.__dict__]
    assert len(caplog.records) - len(summaries) == totals.shown
    assert sum(fields["outlast.count"] for fields in summaries) == totals.summarised
    assert totals.shown + totals.summarised == 80_000


def test_a_pipe_that_nobody_reads_stops_nobody() -> None:
    reads, writes = os.pipe()
    stream = os.fdopen(writes, "w", encoding="utf-8")
    logger = logging.getLogger("unread")
    logger.propagate = False
    handler = QueuedHandler(stream, lines_max=100, close_s=0.1)
    logger.addHandler(handler)
    # One that waited for the reader would wait for ever.
    for number in range(20_000):
        logger.error("%s", f"{number:0>100}")
    totals = handler.writer.totals
    assert totals.taken == 20_000
    assert totals.dropped == totals.taken - totals.written - totals.waiting > 0

    received: list[str] = []

    def read() -> None:
        with os.fdopen(reads, encoding="utf-8") as lines:
            received.extend(lines)

    reader = threading.Thread(target=read)
    reader.start()
    assert handler.writer.flush(30.0)
    logger.error("later")
    assert handler.writer.flush(30.0)
    logger.removeHandler(handler)
    handler.close()
    stream.close()
    reader.join(30.0)
    numbers = [line for line in received if line.startswith("0")]
    gaps = [int(line.split()[1]) for line in received if line.startswith("outlast:")]
    assert received[-1] == "later\n"
    assert numbers == sorted(numbers)
    assert sum(gaps) + len(numbers) == 20_000
    assert sum(gaps) == handler.writer.totals.dropped


def test_a_process_ends_although_its_log_is_not_read() -> None:
    program = """
        import logging, sys
        from outlast.logs._writer import QueuedHandler
        logging.getLogger().addHandler(QueuedHandler(sys.stderr, close_s=0.2))
        for number in range(20_000):
            logging.error("%s", "x" * 100)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        assert process.stderr is not None
        process.stderr.close()
        process.wait()


def test_a_child_writes_its_own_lines_and_the_parent_the_rest() -> None:
    said = run("""
        import logging, os, sys
        from outlast.logs._writer import QueuedHandler
        logging.basicConfig(handlers=[QueuedHandler(sys.stderr)], format="%(message)s")
        logging.error("before")
        child = os.fork()
        logging.error("child" if child == 0 else "parent")
        if child == 0:
            raise SystemExit
        os.waitpid(child, 0)
    """)
    assert sorted(said.splitlines()) == ["before", "child", "parent"]


def test_a_file_that_is_full_for_a_while_gets_every_byte_once(tmp_path: Path) -> None:
    """The largest size of a file stands for the disk's end: SIGXFSZ aside, both are an OSError of a write that came up short."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "log"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with path.open("w", encoding="utf-8") as stream:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_005, before[1]))
            writer = LogWriter(stream, close_s=0.1)
            for number in range(200):
                writer.put(f"{number:0>9}\n")
            assert not writer.flush(0.3)
            assert path.stat().st_size == 1_005
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert writer.flush(30.0)
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text(encoding="utf-8") == "".join(f"{number:0>9}\n" for number in range(200))
    assert writer.totals.dropped == 0
