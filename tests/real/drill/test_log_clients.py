"""The clients of the fluvio drill, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from outlast._drill.fluvio.arms.log_server import LogServer, UnknownOutcome
from outlast._drill.fluvio.http_wire import HttpTalk
from outlast._drill.fluvio.producers import Producers
from outlast._drill.fluvio.wire import FrameTalk, id_of

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
        await LogServer(log).serve(str(path), stop.wait)

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


class Refuser:
    """A server of Durable Streams that answers as `ScriptedLog` does, and closes the connection of whom it has refused."""

    def __init__(self, log: ScriptedLog) -> None:
        self._log = log
        self.created = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers, body = [(b"stream-next-offset", b"%016d" % len(self._log.records))], b""
        match scope["method"]:
            case "PUT":
                self.created, status = self.created + 1, 503 if self.created == 0 else 201
            case "GET":
                status, body = 200, await self._log.read(int(scope["query_string"].removeprefix(b"offset=")))
            case _:
                status = await self._append((await receive())["body"])
                headers = [(b"stream-next-offset", b"%016d" % len(self._log.records))]
        if status == 500:
            headers.append((b"connection", b"close"))
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _append(self, record: bytes) -> int:
        try:
            await self._log.append(record)
        except OSError:
            return 500
        except UnknownOutcome:
            return 504
        return 204


@contextlib.contextmanager
def served_http(talk: HttpTalk, app: Refuser) -> Generator[None]:
    config = uvicorn.Config(app, port=talk.port, loop="asyncio", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_producers_note_what_they_are_told_and_never_send_a_record_again(tmp_path: Path) -> None:
    log, path, refusals = ScriptedLog(), tmp_path / "socket", list[int]()
    producers = Producers(FrameTalk(str(path)), 4, seed=1)
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


def test_producers_speak_http_and_dial_again_when_they_were_told_that_the_connection_ends(tmp_path: Path) -> None:
    log, talk = ScriptedLog(), HttpTalk.to(HttpTalk.new_address(tmp_path))
    producers, app = Producers(talk, 4, seed=1), Refuser(log)
    assert not producers.connect(), "nobody listens yet"
    with served_http(talk, app):
        wait_until(producers.connect)
        assert app.created == 2, "the first time the server was not ready"
        notes = producers.notes
        wait_until(lambda: len(notes.reads_s) > 1 and len(notes.positions) > 20 and len(notes.unknown) == 4)
        producers.stop()
    ids = [id_of(each) for each in log.records]
    assert len(set(ids)) == len(ids)
    assert [ids[position] for position in notes.positions.values()] == [*notes.positions]
    assert sorted(notes.refused) == [number << 40 | 1 for number in range(4)]
    assert sorted(notes.unknown) == [number << 40 | 2 for number in range(4)]
    assert dict(notes.errors) == {"500 ": 4}
    assert (len(notes.append_s), len(notes.reads_failed_s), producers.broken) == (len(ids), 0, 0)


def test_another_record_than_was_asked_for_is_a_read_that_failed(tmp_path: Path) -> None:
    log, path = ScriptedLog(), tmp_path / "socket"
    log.wrong = True
    producers = Producers(FrameTalk(str(path)), 2, seed=1)
    with served(path, log):
        wait_until(producers.connect)
        wait_until(lambda: "another record" in producers.notes.read_errors)
        producers.stop()
    assert producers.notes.reads_failed_s


def test_a_server_that_hangs_up_ends_its_clients(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    producers = Producers(FrameTalk(str(path)), 4, seed=1)
    with served(path, ScriptedLog()) as hang_up:
        wait_until(producers.connect)
        wait_until(lambda: producers.ready == 4)
        hang_up()
        wait_until(lambda: producers.broken == 5)
        producers.stop()
    # What was under way then may be stored or not.
    assert len(producers.notes.unknown) <= 8
