"""The clients of the fluvio drill, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from outlast._drill.fluvio.arms.log_server import LogServer, UnknownOutcome
from outlast._drill.fluvio.producers import Producers
from outlast._drill.fluvio.wire import id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

WAIT_S_MAX = 60.0


class ScriptedLog:
    """Stores the first record of each producer, refuses the second, does not know of the third, and stores what follows."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.wrong = False

    async def append(self, record: bytes) -> int:
        number = id_of(record)
        assert number is not None
        match number & (1 << 40) - 1:
            case 1:
                raise OSError(28, "No space left on device")
            case 2:
                raise UnknownOutcome
        self.records.append(record)
        return len(self.records) - 1

    async def read(self, position: int) -> bytes:
        return self.records[position - 1 if self.wrong else position]


@contextlib.contextmanager
def served(path: Path, log: ScriptedLog) -> Generator[Callable[[], None]]:
    """Serve the log on `path` in a thread; yields what hangs up on everyone."""
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        await LogServer(log).serve(path, stop.wait)

    thread = threading.Thread(target=asyncio.Runner(loop_factory=lambda: loop).run, args=(serve(),))
    thread.start()

    def hang_up() -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        # What the runner would do when it is closed: the connections end with their tasks.
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))

    try:
        yield hang_up
    finally:
        hang_up()
        loop.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_producers_note_what_they_are_told_and_never_send_a_record_again(tmp_path: Path) -> None:
    log, path, refusals = ScriptedLog(), tmp_path / "socket", list[int]()
    producers = Producers(path, 4, seed=1)
    assert not producers.connect(), "nobody listens yet"
    producers.at_refusal(lambda: refusals.append(1))
    with served(path, log):
        wait_until(producers.connect)
        producers.unleash()
        notes = producers.notes
        wait_until(lambda: len(notes.reads_s) > 1 and len(notes.positions) > 40 and len(notes.unknown) == 4)
        producers.stop()
    assert (producers.ready, refusals) == (4, [1])
    ids = [id_of(each) for each in log.records]
    assert len(set(ids)) == len(ids)
    assert [ids[position] for position in notes.positions.values()] == [*notes.positions]
    assert sorted(notes.refused) == [number << 40 | 1 for number in range(4)]
    assert sorted(notes.unknown) == [number << 40 | 2 for number in range(4)]
    assert len(notes.refusal_s) == len(notes.refused_s) == 4
    assert dict(notes.errors) == {"[Errno 28] No space left on device": 4}
    assert len(notes.acknowledged_s) == len(notes.positions) == len(ids)
    assert (len(notes.reads_failed_s), producers.broken) == (0, 0)


def test_another_record_than_was_asked_for_is_a_read_that_failed(tmp_path: Path) -> None:
    log, path = ScriptedLog(), tmp_path / "socket"
    log.wrong = True
    producers = Producers(path, 2, seed=1)
    with served(path, log):
        wait_until(producers.connect)
        wait_until(lambda: "another record" in producers.notes.read_errors)
        producers.stop()
    assert producers.notes.reads_failed_s


def test_a_server_that_hangs_up_ends_its_clients(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    producers = Producers(path, 4, seed=1)
    with served(path, ScriptedLog()) as hang_up:
        wait_until(producers.connect)
        wait_until(lambda: producers.ready == 4)
        hang_up()
        wait_until(lambda: producers.broken == 5)
        producers.stop()
    # What was under way then may be stored or not.
    assert len(producers.notes.unknown) <= 8
