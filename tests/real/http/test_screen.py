"""Tokens and admission are asked before a request costs anything: refusals are read, slots are never lost, order is kept."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
from served import LIMIT_S, answer, echo, get, post, serving

import outlast
from outlast.admission import Concurrency, Rate
from outlast.http import Limits, Tokens

if TYPE_CHECKING:
    from conftest import RunAsync

pytestmark = pytest.mark.expected_logs("refuses work by")
ONE = Concurrency(limit_min=2, limit_start=2, limit_max=2)
"""Two at a time: the smallest limit there is."""
TOKENS = Tokens(["reports read 2f7c0a5d9e1b4c3a8d6f", "deploy read,write 7c0a5d9e1b4c3a8d6f2f tenant-7"])


class Counting:
    """An application that counts, and waits for `go` on the path /wait."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        self.calls.append(scope["path"])
        if scope["path"] == "/wait":
            await self.go.wait()
        await echo(scope, receive, send)


def under_way(admission: outlast.Admission) -> int:
    return admission._desk.inside


@pytest.mark.short
def test_a_refused_request_is_told_when_to_come_back_and_its_connection_goes_on(run_async: RunAsync) -> None:
    async def main() -> None:
        app = Counting()
        admission = outlast.Admission("orders", key_rate=Rate(0.001, burst=1))
        async with serving(app, admission=admission, ask=by_path) as served, await served.connect() as client:
            client.send(get("/a"))
            assert (await client.answer()).status == 200
            for request in (get("/a"), post(b"x" * 1_000, path="/a"), get("/a?b"), get("/%61")):
                client.send(request)
                got = await client.answer()
                assert (got.status, got.code, got.headers.get("connection")) == (429, "rate", None)
                assert int(got.headers["retry-after"]) >= got.problem["retry_after_s"] > 0
            client.send(post(b"not a", path="/b"))
            assert (await client.answer()).body == b"not a"
            client.head = True
            client.send(get("/a", method="HEAD"))
            assert (await client.answer()).status == 429
            client.head = False
            client.send(get("/c"))
            assert (await client.answer()).status == 200
            assert app.calls == ["/a", "/b", "/c"]
            figures = {figure.name: dict(figure.samples) for figure in served.server.figures()}
            assert figures["refused_requests"] == {(): 5}
        assert under_way(admission) == 0

    run_async(main)


def by_path(method: str, path: str, headers: Any, client: str, token: Any) -> Any:
    from outlast.http import Ask

    return Ask(key=path)


@pytest.mark.parametrize("expects", [True, False], ids=["100-continue", "body at once"])
def test_a_refusal_of_a_large_body_is_read_by_a_client_that_sends_first(run_async: RunAsync, *, expects: bool) -> None:
    size = 10_000_000

    def sent_in_full(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as sock:
            expect = ["Expect: 100-continue"] if expects else []
            sock.sendall(get("/a", f"Content-Length: {size}", *expect, method="POST"))
            if not expects:
                sock.sendall(b"x" * size)
                sock.sendall(get("/second"))
            got = b""
            while data := sock.recv(65_536):
                got += data
            return got

    async def main() -> None:
        app = Counting()
        admission = outlast.Admission("orders", rate=Rate(0.001, burst=1))
        async with serving(app, admission=admission) as served:
            async with await served.connect() as client:
                client.send(get())
                assert (await client.answer()).status == 200
            got = await asyncio.to_thread(sent_in_full, served.server.port)
            assert got.startswith(b"HTTP/1.1 429")
            assert b"\r\nretry-after: " in got
            assert b"\r\nconnection: close\r\n" in got
            assert got.count(b"HTTP/1.1") == 1, "nobody was told to continue, and nothing came after it"
            assert app.calls == ["/"]

    run_async(main)


def test_what_may_wait_waits_and_leaves_the_queue_with_its_client(run_async: RunAsync) -> None:
    async def main() -> None:
        app = Counting()
        admission = outlast.Admission("orders", concurrency=ONE)
        async with serving(app, admission=admission) as served:
            busy = [await served.connect() for _ in range(2)]
            for client in busy:
                client.send(get("/wait"))
            await served.until(lambda: len(app.calls) == 2)
            leaving, staying = await served.connect(), await served.connect()
            for client in (leaving, staying):
                client.send(get("/next"))
            await served.until(lambda: admission._desk.admitter.waiting == 2)
            leaving.writer.transport.abort()
            await served.until(lambda: admission._desk.admitter.waiting == 1)
            app.go.set()
            assert [(await client.answer()).status for client in (*busy, staying)] == [200] * 3
            assert app.calls == ["/wait", "/wait", "/next"]
            for client in (*busy, staying):
                client.writer.close()
            await served.until(lambda: served.open == 0)
        assert under_way(admission) == 0

    run_async(main)


@pytest.mark.parametrize("whole", [True, False], ids=["all of it has come", "the rest of its body is to come"])
def test_who_waits_in_vain_is_answered_and_has_cost_no_task(run_async: RunAsync, whole: bool) -> None:  # noqa: FBT001
    async def main() -> None:
        app = Counting()
        admission = outlast.Admission("orders", concurrency=ONE)
        async with serving(app, admission=admission) as served, await served.connect() as last:
            busy = [await served.connect() for _ in range(2)]
            for client in busy:
                client.send(get("/wait"))
            await served.until(lambda: len(app.calls) == 2)
            last.send(post(b"abc", path="/next") if whole else get("/next", "Content-Length: 100", method="POST") + b"x")
            await served.until(lambda: admission._desk.admitter.waiting == 1)
            assert len(served.server._host.state.tasks) == 2
            got = await last.answer()
            assert (got.status, got.code, got.headers.get("connection")) == (503, "concurrency", None if whole else "close")
            assert int(got.headers["retry-after"]) >= 1
            app.go.set()
            assert [(await client.answer()).status for client in busy] == [200] * 2
            if whole:
                last.send(get("/again"))
                assert (await last.answer()).status == 200
            else:
                assert await last.rest() == b""
            for client in busy:
                client.writer.close()
            assert app.calls == ["/wait", "/wait", "/again"][: 2 + whole]
        assert under_way(admission) == 0

    run_async(main)


def test_who_closes_its_side_while_it_waits_is_not_let_in(run_async: RunAsync) -> None:
    async def main() -> None:
        app = Counting()
        admission = outlast.Admission("orders", concurrency=ONE)
        async with serving(app, admission=admission) as served, await served.connect() as last:
            busy = [await served.connect() for _ in range(2)]
            for client in busy:
                client.send(get("/wait"))
            await served.until(lambda: len(app.calls) == 2)
            last.send(get("/next"))
            await served.until(lambda: admission._desk.admitter.waiting == 1)
            last.writer.write_eof()
            await served.until(lambda: admission._desk.admitter.waiting == 0)
            assert admission._desk.admitter.left == 1
            app.go.set()
            assert [(await client.answer()).status for client in busy] == [200] * 2
            for client in busy:
                client.writer.close()
        assert app.calls == ["/wait", "/wait"]

    run_async(main)


def test_who_waits_when_the_service_stops_is_told_so(run_async: RunAsync) -> None:
    async def main() -> None:
        app = Counting()
        admission = outlast.Admission("orders", concurrency=ONE)
        async with serving(app, admission=admission) as served:
            clients = [await served.connect() for _ in range(3)]
            for client in clients:
                client.send(get("/wait"))
                await asyncio.sleep(0.01)
            await served.until(lambda: admission._desk.admitter.waiting == 1)
            served.stop.fire("enough")
            got = await clients[2].answer()
            assert (got.status, got.headers["connection"]) == (503, "close")
            app.go.set()
            assert [(await client.answer()).status for client in clients[:2]] == [200] * 2
            for client in clients:
                assert await client.rest() == b""
                client.writer.close()
            assert await served.running == 0
        assert under_way(admission) == 0

    run_async(main)


@pytest.mark.parametrize("leave", ["at once", "in the queue", "at work"])
def test_clients_that_leave_take_no_slot_with_them(run_async: RunAsync, leave: str) -> None:
    async def main() -> None:
        app = Counting()
        app.go.set()
        admission = outlast.Admission("orders", concurrency=ONE)
        async with serving(app, admission=admission) as served:
            for number in range(100):
                clients = [await served.connect() for _ in range(4)]
                for client in clients:
                    client.send(post(b"x" * 100, path="/wait" if number % 2 else "/other"))
                if leave != "at once":
                    await asyncio.sleep(0 if leave == "in the queue" else 0.002)
                for client in clients:
                    client.writer.transport.abort()
            await served.until(lambda: served.open == 0)
            await served.until(lambda: under_way(admission) == 0)
            got = await served.ask(get("/last", "Connection: close"))
            assert got.status == 200

    run_async(main)


def test_requests_sent_ahead_are_asked_about_in_their_turn(run_async: RunAsync) -> None:
    async def main() -> None:
        app = Counting()
        admission = outlast.Admission("orders", key_rate=Rate(0.001, burst=1))
        async with serving(app, admission=admission, ask=by_path) as served, await served.connect() as client:
            client.send(get("/a") + get("/a") + get("/b") + get("/a") + get("/c"))
            got = [await client.answer() for _ in range(5)]
            assert [each.status for each in got] == [200, 429, 200, 429, 200]
            assert app.calls == ["/a", "/b", "/c"]

    run_async(main)


def test_a_flood_of_refused_requests_whose_answers_nobody_reads_ends(run_async: RunAsync) -> None:
    async def main() -> None:
        app = Counting()
        admission = outlast.Admission("orders", rate=Rate(0.001, burst=1))
        async with serving(app, admission=admission, limits=Limits(write_s=0.2, drain_s=0.1)) as served:
            assert (await served.ask(get("/a", "Connection: close"))).status == 200
            reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            most = 0
            while served.open or not served.server._tally.refused:
                if not writer.transport.is_closing() and writer.transport.get_write_buffer_size() < 2**20:
                    writer.write(get("/a") * 2_000)
                await asyncio.sleep(0.001)
                most = max([most, *(connection.unsent for connection in served.server._host.connections)])
            writer.transport.abort()
            assert most < 2**20
            assert served.server._tally.cut.keys() <= {"too many pipelined", "reader too slow"}

    run_async(main)


@pytest.mark.parametrize(
    ("headers", "method", "status", "code"),
    [
        ([], "GET", 401, "no token"),
        (["Authorization: Bearer wrong-wrong-wrong-wrong"], "GET", 401, "unknown token"),
        (["Authorization: Bearer 2f7c0a5d9e1b4c3a8d6f"], "GET", 200, ""),
        (["Authorization: Bearer 2f7c0a5d9e1b4c3a8d6f"], "POST", 403, "scope missing"),
        (["Authorization: Bearer 7c0a5d9e1b4c3a8d6f2f"], "POST", 200, ""),
    ],
)
def test_tokens_are_asked_first(run_async: RunAsync, headers: list[str], method: str, status: int, code: str) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        seen.append(scope["extensions"]["outlast.token"].name)
        await answer(send)

    async def main() -> None:
        admission = outlast.Admission("orders", rate=Rate(0.001, burst=2))
        async with serving(app, tokens=TOKENS, admission=admission) as served, await served.connect() as client:
            # One without a token costs no token of the rate; the second is one that was sent ahead.
            client.send(get("/a", *headers, "Content-Length: 0", method=method) * 2)
            for _ in range(2):
                got = await client.answer()
                assert got.status == status
                assert not code or got.code == code
                assert ("www-authenticate" in got.headers) is (status in {401, 403})
            assert len(seen) == 2 * (status == 200)

    run_async(main)


def test_a_path_is_judged_as_the_application_sees_it(run_async: RunAsync) -> None:
    tokens = Tokens(["reports read 2f7c0a5d9e1b4c3a8d6f"], needs=lambda method, path: "admin" if path == "/admin" else None)

    async def main() -> None:
        app = Counting()
        async with serving(app, tokens=tokens) as served:
            for path in ("/admin", "/%61dmin", "/admin?x", "http://shop/admin"):
                assert (await served.ask(get(path, "Connection: close"))).status == 401
            assert (await served.ask(get("/other", "Connection: close"))).status == 200
        assert app.calls == ["/other"]

    run_async(main)


def test_a_function_of_the_users_that_raises_is_a_bug_and_said_once(run_async: RunAsync, caplog: Any) -> None:
    def ask(*_: Any) -> Any:
        raise ZeroDivisionError

    async def main() -> None:
        app = Counting()
        admission = outlast.Admission("orders")
        async with serving(app, admission=admission, ask=ask) as served:
            for _ in range(3):
                got = await served.ask(get("/a", "Connection: close"))
                assert (got.status, got.code) == (500, "bug")
        assert app.calls == []

    with caplog.at_level(logging.INFO, "outlast"):
        run_async(main)
    loud = [record for record in caplog.records if record.levelno > logging.INFO]
    assert [record.levelname for record in loud] == ["ERROR"]
    assert "ZeroDivisionError" in loud[0].getMessage()


def test_many_refused_requests_of_a_client_that_is_gone_write_no_line(run_async: RunAsync) -> None:
    async def main() -> None:
        admission = outlast.Admission("orders", rate=Rate(0.001, burst=1))
        async with serving(Counting(), admission=admission) as served:
            assert (await served.ask(get("/a", "Connection: close"))).status == 200
            async with await served.connect() as client:
                client.send(get("/a"))
                assert (await client.answer()).status == 429
                (connection,) = served.server._host.connections
                # As if the first of the answers to this piece of input had met a reset.
                connection.transport.abort()
                connection.data_received(get("/a") * 500)
            await served.until(lambda: served.open == 0)

    run_async(main)


def test_the_rest_of_a_refused_request_that_does_not_come_gets_no_second_answer(run_async: RunAsync) -> None:
    async def main() -> None:
        admission = outlast.Admission("orders", rate=Rate(0.001, burst=1))
        limits = Limits(body_s=0.2, drain_s=0.1)
        async with serving(Counting(), admission=admission, limits=limits) as served, await served.connect() as client:
            client.send(get("/a"))
            assert (await client.answer()).status == 200
            client.send(get("/a", "Content-Length: 100", method="POST") + b"x")
            assert (await client.answer()).status == 429
            assert await client.rest() == b""
            assert served.cut == {"body too slow": 1}

    run_async(main)


def test_a_client_that_reads_late_gets_the_answers_to_all_it_has_sent(run_async: RunAsync) -> None:
    """While it does not read, nothing more is read of it either; then both go on."""

    async def main() -> None:
        admission = outlast.Admission("orders", rate=Rate(0.001, burst=1))
        async with serving(Counting(), admission=admission, limits=Limits(write_bytes_max=1_000)) as served:
            assert (await served.ask(get("/a", "Connection: close"))).status == 200
            async with await served.connect() as client:
                client.reader._transport.pause_reading()  # type: ignore[attr-defined]
                await served.until(lambda: len(served.server._host.connections) == 1)
                (connection,) = served.server._host.connections
                sent = 0
                while not connection.flow.read_paused:
                    client.send(get("/a") * 8)
                    sent += 8
                    await asyncio.sleep(0)
                client.reader._transport.resume_reading()  # type: ignore[attr-defined]
                assert {(await client.answer()).status for _ in range(sent)} == {429}
                client.send(get("/a"))
                assert (await client.answer()).status == 429

    run_async(main)


def test_a_secret_in_the_query_lets_in_and_is_shown_nowhere(run_async: RunAsync, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the log, not in the gate, not in an answer."""
    caplog.set_level(logging.DEBUG)
    secret = "7c0a5d9e1b4c3a8d6f2f"
    tokens = Tokens([f"deploy write {secret}"], schemes=["query"])
    app = Counting()

    async def main() -> None:
        async with serving(app, tokens=tokens) as served, await served.connect() as client:
            client.send(post(b"in", path=f"/write?db=m&p={secret}"))
            assert (await client.answer()).body == b"in"
            client.send(post(b"out", path=f"/write?db=m&p={secret}x"))
            refused = await client.answer()
            assert (refused.status, refused.code) == (401, "unknown token")
            assert secret.encode() not in refused.body
            client.send(post(b"", path=f"/wait?p={secret}"))
            await served.until(lambda: "/wait" in app.calls)
            assert secret not in repr(served.service.report)
            assert [holder.name for holder in served.service.gate.holders] == ["POST /wait"]
            app.go.set()
            await client.answer()

    run_async(main)
    assert app.calls == ["/write", "/wait"]
    assert secret not in caplog.text
