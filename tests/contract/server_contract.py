"""The promises of every server: one suite, and a rig for each server that says how it is made and what its paths do.

A server takes part by a class beside its rig:

    class TestMyServer(ServerContract):
        @pytest.fixture
        def rig(self) -> Rig: ...

Each test serves on a socket of its own. A line at WARNING or above that a test did not ask for fails it, as everywhere.
"""

from __future__ import annotations

import abc
import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import pytest
from served import Served, get

from outlast import Stop
from outlast.admission import Ticket
from outlast.http import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from served import Answer, Client

    from conftest import LogWatch, RunAsync
    from outlast import Admission, Service
    from outlast.http import Server

WAITING = 20
"""Long polls and event streams that are open while a server stops."""
REFUSES = "refuses work by"
"""The one line of an admission that begins to refuse."""
SMALL = Limits(connections_max=4, headers_max=20, headers_bytes_max=2_000, body_bytes_max=1_000)
QUICK = Limits(headers_s=0.2, body_s=0.2, body_bytes_per_s_min=1e9, write_s=0.2, write_bytes_per_s_min=1e9)


class Rig(abc.ABC):
    """One server, as its users make it: with tokens and admission. A path that is None is one it does not have."""

    reader: str
    """The secret of a token with the scope of GET, and no other."""
    writer: str
    """The secret of a token with the scopes of GET and POST."""
    ok: str
    """GET answers 200 with a body."""
    upload: str
    """POST reads a body of any length and answers 200."""
    large: str | None = None
    """GET answers with 16 MiB or more."""
    poll: str | None = None
    """GET waits for something that does not happen, for a minute at least."""
    events: str | None = None
    """GET answers with events for as long as it may."""
    bug: str | None = None
    """GET raises an error that nobody knows, with the text `inside`."""
    _admission: Admission
    """That of the server which was made last."""

    @abc.abstractmethod
    def make(self, limits: Limits, deadline_s: float) -> tuple[Service, Server]:
        """Make a service with a server on a free port of 127.0.0.1, attached."""

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Let the admission of the server refuse requests for a block, since others hold every slot; health and deletes apart."""
        held: list[Ticket] = []
        while isinstance(got := self._admission.try_enter(key="others"), Ticket):
            held.append(got)
        yield
        for ticket in held:
            ticket.release(ok=None)

    def inside(self) -> int:
        """How many requests the admission counts as under way or parked."""
        return self._admission._desk.inside

    def path(self, name: str) -> str:
        """A path that not every server has."""
        found: str | None = getattr(self, name)
        if found is None:
            pytest.skip(f"this server has no path for {name}")
        return found

    @asynccontextmanager
    async def serving(self, limits: Limits | None = None, *, deadline_s: float = 10.0) -> AsyncIterator[Served]:
        """Serve until the block ends, and stop: cleanly, and with nothing left inside."""
        service, server = self.make(limits or Limits(), deadline_s)
        stop = Stop()
        running = asyncio.create_task(service.run(stop))
        ready = asyncio.ensure_future(service.until_ready())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        served = Served(server, service, stop, running)
        try:
            yield served
        finally:
            stop.fire("the test is over")
            code = await running
        assert code == 0, service.report
        assert self.inside() == 0
        assert served.open == 0

    def get(self, path: str, *headers: str, method: str = "GET", token: str | None = None) -> bytes:
        """A request with a token: that of the reader, unless another one is named; "" for none."""
        secret = self.reader if token is None else token
        own = [f"Authorization: Bearer {secret}"] if secret else []
        return get(path, *own, *headers, method=method)

    def post(self, body: bytes, *headers: str, sends: bool = True) -> bytes:
        """An upload by the writer."""
        head = self.get(self.upload, f"Content-Length: {len(body)}", *headers, method="POST", token=self.writer)
        return head + body if sends else head


class ServerContract:
    """What holds of every server."""

    def test_a_problem_says_what_it_is_about_and_names_the_request(self, rig: Rig, run_async: RunAsync) -> None:
        async def main() -> None:
            async with rig.serving() as served:
                answer = await ask(served, rig.get("/no/such/path"))
                assert (answer.status, answer.problem["title"]) == (404, "Not Found")
                answer = await ask(served, rig.get("/no/such/path", "X-Request-Id: mine-7"))
                assert answer.problem["request_id"] == "mine-7"
                answer = await ask(served, rig.get(rig.ok, "X-Request-Id: not a fit id"))
                assert (answer.status, len(answer.headers["x-request-id"])) == (200, 16)
                assert (await ask(served, rig.get(rig.ok, method="PATCH", token=rig.writer))).problem["status"] == 405

        run_async(main)

    def test_a_bug_is_answered_without_a_word_about_it_and_logged_once(
        self, rig: Rig, run_async: RunAsync, expected_logs: LogWatch
    ) -> None:
        async def main() -> None:
            async with rig.serving() as served:
                for _ in range(3):
                    answer = await ask(served, rig.get(bug))
                    assert (answer.status, answer.code, b"inside" in answer.body) == (500, "bug", False)
                assert (await ask(served, rig.get(rig.ok))).status == 200

        bug = rig.path("bug")
        expected_logs("inside")
        run_async(main)
        assert len([line for line in expected_logs.messages if "inside" in line]) == 1

    @pytest.mark.parametrize("what", ["a request", "a large body", "a body that waits for 100"])
    def test_what_is_refused_can_be_read_and_says_when_to_come_back(
        self, rig: Rig, run_async: RunAsync, expected_logs: LogWatch, what: str
    ) -> None:
        async def main() -> None:
            async with rig.serving() as served:
                with rig.refusing():
                    async with await served.connect() as client:
                        client.send(request)
                        answer = await client.answer()
                        assert answer.status in {429, 503}
                        assert answer.problem["kind"] == "overloaded"
                        assert answer.problem["retry_after_s"] > 0
                        assert int(answer.headers["retry-after"]) >= max(1, answer.problem["retry_after_s"])
                        if answer.headers.get("connection") == "close":
                            assert await client.rest() == b""
                        else:
                            client.send(rig.get("/readyz"))
                            assert (await client.answer()).status not in {429, 503}
                assert (await ask(served, rig.get(rig.ok))).status == 200

        body = b"x" * 10_000_000
        request = {
            "a request": rig.get(rig.ok),
            "a large body": rig.post(body),
            "a body that waits for 100": rig.post(body, "Expect: 100-continue", sends=False),
        }[what]
        expected_logs(REFUSES, optional=True)
        run_async(main)

    def test_health_and_deletes_are_never_refused(self, rig: Rig, run_async: RunAsync, expected_logs: LogWatch) -> None:
        async def main() -> None:
            async with rig.serving() as served:
                with rig.refusing():
                    assert (await ask(served, rig.get("/readyz", token=""))).status not in {429, 503}
                    delete = rig.get("/no/such/path", method="DELETE", token=rig.writer)
                    assert (await ask(served, delete)).status in {404, 405}

        expected_logs(REFUSES, optional=True)
        run_async(main)

    def test_a_token_and_its_scope_are_asked_for(self, rig: Rig, run_async: RunAsync) -> None:
        async def main() -> None:
            async with rig.serving() as served:
                without = await ask(served, rig.get(rig.ok, token=""))
                assert (without.status, without.headers["www-authenticate"]) == (401, "Bearer")
                unknown = await ask(served, rig.get(rig.ok, token=rig.reader[:-1]))
                assert (unknown.status, unknown.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
                reader = await ask(served, rig.get(rig.upload, "Content-Length: 1", method="POST") + b"x")
                assert reader.status == 403
                assert 'error="insufficient_scope"' in reader.headers["www-authenticate"]
                for answer in (without, unknown, reader):
                    assert answer.problem["kind"] == "rejected"
                    assert rig.reader[:-1].encode() not in answer.body
                assert (await ask(served, rig.post(b"x"))).status == 200

        run_async(main)

    def test_no_token_is_ever_logged(self, rig: Rig, run_async: RunAsync, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            async with rig.serving() as served:
                await ask(served, rig.get(rig.ok))
                await ask(served, rig.get(rig.ok, token="unknown-" + rig.reader))
                await ask(served, rig.get(rig.ok, "X: y" * 20_000))
                if rig.bug is not None:
                    await ask(served, rig.get(rig.bug))

        with caplog.at_level("DEBUG"):
            run_async(main)
        assert caplog.text
        assert rig.reader not in caplog.text

    def test_head_is_answered_as_get_without_a_body(self, rig: Rig, run_async: RunAsync) -> None:
        async def main() -> None:
            async with rig.serving() as served, await served.connect() as client:
                for path in (rig.ok, "/no/such/path"):
                    client.head = True
                    client.send(rig.get(path, method="HEAD"))
                    head = await client.answer()
                    client.head = False
                    client.send(rig.get(path))
                    answer = await client.answer()
                    assert (head.status, head.body) == (answer.status, b"")
                    assert head.headers["content-type"] == answer.headers["content-type"]
                    assert answer.body

        run_async(main)

    def test_a_client_that_asks_before_it_sends_is_told_to_go_on(self, rig: Rig, run_async: RunAsync) -> None:
        async def main() -> None:
            async with rig.serving() as served, await served.connect() as client:
                client.send(rig.post(b"x" * 10, "Expect: 100-continue", sends=False))
                assert (await client.answer()).status == 100
                client.send(b"x" * 10)
                assert (await client.answer()).status == 200
            async with rig.serving(SMALL) as served, await served.connect() as client:
                client.send(rig.post(b"x" * 2_000, "Expect: 100-continue", sends=False))
                assert (await client.answer()).status == 413

        run_async(main)

    def test_what_a_client_sends_is_bounded(self, rig: Rig, run_async: RunAsync) -> None:
        async def main() -> None:
            async with rig.serving(SMALL) as served:
                assert (await ask(served, rig.get(rig.ok, "X: " + "y" * 2_000))).problem["status"] == 431
                assert (await ask(served, rig.get(rig.ok, *["X: y"] * 30))).problem["status"] == 431
                assert (await ask(served, rig.get("/" + "x" * 9_000))).problem["status"] == 414
                assert (await ask(served, rig.post(b"x" * 2_000))).problem["status"] == 413
                chunked = rig.get(rig.upload, "Transfer-Encoding: chunked", method="POST", token=rig.writer)
                assert (await ask(served, chunked + b"7d0\r\n" + b"x" * 2_000 + b"\r\n")).problem["status"] == 413
                assert (await ask(served, b"what is this?\r\n\r\n")).problem["status"] == 400

        run_async(main)

    def test_connections_are_bounded(self, rig: Rig, run_async: RunAsync) -> None:
        async def main() -> None:
            async with rig.serving(SMALL) as served:
                clients = [await served.connect() for _ in range(4)]
                for client in clients:
                    client.send(rig.get(rig.ok))
                    assert (await client.answer()).status == 200
                async with await served.connect() as one_more:
                    one_more.send(rig.get(rig.ok))
                    assert (await one_more.answer()).problem["status"] == 503
                for client in clients:
                    await client.__aexit__()

        run_async(main)

    def test_who_is_slow_is_answered_or_cut(self, rig: Rig, run_async: RunAsync) -> None:
        async def main() -> None:
            async with rig.serving(QUICK) as served:
                async with await served.connect() as headers, await served.connect() as body:
                    headers.send(rig.get(rig.ok)[:-2] + b"X: y")
                    body.send(rig.post(b"x" * 100, sends=False) + b"x")
                    assert (await headers.answer()).problem["status"] == 408
                    assert (await body.answer()).problem["status"] == 408
                if rig.large is not None:
                    async with await not_reading(served) as reader:
                        reader.send(rig.get(rig.large))
                        await served.until(lambda: "reader too slow" in served.cut and served.open == 0)
                await served.until(lambda: rig.inside() == 0)

        run_async(main)

    @pytest.mark.parametrize("path", ["ok", "poll", "events", "upload"])
    @pytest.mark.parametrize("reads", [False, True], ids=["before the first byte", "after it"])
    def test_clients_that_leave_free_everything(self, rig: Rig, run_async: RunAsync, path: str, *, reads: bool) -> None:
        async def main() -> None:
            async with rig.serving() as served:
                for turn in range(WAITING):
                    async with await served.connect() as client:
                        client.send(request)
                        if reads and path in {"ok", "events"}:
                            await client.reader.read(1)
                        elif reads:
                            await served.until(lambda: rig.inside() > 0)
                        else:
                            await asyncio.sleep(0.001 * (turn % 3))
                await served.until(lambda: rig.inside() == 0 and served.open == 0 and not len(served.service.gate))

        where = rig.path(path)
        request = rig.post(b"x" * 10)[:-1] if path == "upload" else rig.get(where)
        run_async(main)

    def test_a_stop_ends_what_only_waits_at_once_and_lets_the_rest_finish(self, rig: Rig, run_async: RunAsync) -> None:
        async def main() -> None:
            async with rig.serving() as served:
                polls = [await opened(served, rig.get(rig.poll)) for _ in range(WAITING) if rig.poll]
                streams = [await opened(served, rig.get(rig.events)) for _ in range(WAITING) if rig.events]
                for stream in streams:
                    await stream.reader.readuntil(b"\r\n\r\n")
                await served.until(lambda: rig.inside() == len(polls) + len(streams))
                upload = await opened(served, rig.post(b"x" * 10)[:-1])
                await served.until(lambda: rig.inside() == len(polls) + len(streams) + 1)
                served.stop.fire("SIGTERM")
                for poll in polls:
                    answer = await poll.answer()
                    assert answer.status in {204, 503}
                    assert await poll.rest() == b""
                for stream in streams:
                    assert (await stream.rest()).endswith(b"\r\n0\r\n\r\n"), "a whole answer"
                upload.send(b"x")
                answer = await upload.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close"), answer
                await served.running
                report = served.service.report
                assert report is not None
                assert (report.exit_code, report.unfinished) == (0, ())
                for client in (*polls, *streams, upload):
                    await client.__aexit__()

        run_async(main)

    def test_a_stop_cuts_what_does_not_finish_and_names_it(self, rig: Rig, run_async: RunAsync, expected_logs: LogWatch) -> None:
        async def main() -> None:
            service, server = rig.make(Limits(), 1.0)
            stop = Stop()
            running = asyncio.create_task(service.run(stop))
            await service.until_ready()
            served = Served(server, service, stop, running)
            async with await served.connect() as upload:
                upload.send(rig.post(b"x" * 10)[:-1])
                await served.until(lambda: rig.inside() == 1)
                stop.fire("SIGTERM")
                assert (await upload.answer()).status in {408, 503}
                assert await running in {0, 75}
            assert rig.inside() == 0

        expected_logs("POST", optional=True)
        run_async(main)


async def ask(served: Served, request: bytes) -> Answer:
    """Ask on a connection of its own."""
    async with await served.connect() as client:
        client.send(request)
        return await client.answer()


async def opened(served: Served, request: bytes) -> Client:
    client = await served.connect()
    client.send(request)
    return client


async def not_reading(served: Served) -> Client:
    """A client whose socket takes next to nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", served.server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    writer.transport.pause_reading()  # type: ignore[attr-defined] # of a socket's transport
    from served import Client

    return Client(reader, writer)
