"""`HttpPeer` in virtual time: connections, deadlines, bodies and streams have their bounds, and an end."""

from __future__ import annotations

import asyncio
import errno
import random
from typing import TYPE_CHECKING

import httpx2
import pytest
from mock_site import Site, failed, site

from outlast import Kind, Scope, State, Stopping, Unavailable
from outlast.admission import Throttle
from outlast.http import AnswerError, AnswerTooLargeError, HttpPeer
from outlast.http._client.wire import Wire
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["site"]
pytestmark = pytest.mark.expected_logs


def test_the_wait_for_a_connection_is_off_the_deadline_and_what_is_left_travels(site: Site) -> None:
    async def main() -> None:
        peer = site.peer(connections_max=1, deadline_s=1.0)
        site.by_path["/v1/slow"] = site.sleeping(0.39)
        first = asyncio.create_task(peer.get("/slow"))
        await asyncio.sleep(0)
        await asyncio.gather(first, peer.get("/slow"))
        assert [request.headers["x-request-timeout"] for request in site.requests] == ["1.000", "0.600"]

    run_virtual(main)


def test_a_call_that_finds_no_connection_is_refused_for_want_of_one_and_nobody_else_is(site: Site) -> None:
    async def main() -> None:
        peer = site.peer(connections_max=2, waiters_max=1)
        site.by_path["/v1/slow"] = site.sleeping(1.0)
        slow = [asyncio.create_task(peer.get("/slow")) for _ in range(2)]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(failed(peer.get("/x", deadline_s=0.2)))
        await asyncio.sleep(0)
        for call in (peer.get("/x"), waiting):
            error, fault = await (failed(call) if call is not waiting else waiting)  # type: ignore[arg-type]
            assert (fault.kind, fault.code, fault.scope, fault.source) == (Kind.OVERLOADED, "no connection", Scope.CALL, "orders")
            assert "connections_max" in str(error)
        await asyncio.gather(*slow)
        assert (site.count("GET"), peer.state) == (2, State.UP)
        await peer.get("/x")

    run_virtual(main)


def test_those_who_wait_for_a_connection_are_refused_when_the_peer_goes_down(site: Site) -> None:
    async def main() -> None:
        peer = site.peer(connections_max=1)
        site.by_path["/v1/x"] = site.answer(503)
        calls = [asyncio.create_task(failed(peer.get("/x"))) for _ in range(5)]
        told = await asyncio.gather(*calls)
        assert [type(error) for error, _ in told] == [AnswerError] + [Unavailable] * 4
        assert {fault.code for _, fault in told} == {"HTTP 503"}
        assert site.count("GET") == 1
        await peer.close()

    run_virtual(main)


def test_those_who_wait_are_refused_though_nobody_lets_go_of_a_connection(site: Site) -> None:
    async def main() -> None:
        peer = site.peer(connections_max=1)
        site.by_path["/v1/slow"] = site.sleeping(8.0)
        slow = asyncio.create_task(peer.get("/slow"))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(failed(peer.get("/x")))
        await asyncio.sleep(0)
        peer.report(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
        error, fault = await waiting
        assert isinstance(error, Unavailable)
        assert (fault.code, slow.done()) == ("ECONNREFUSED", False)
        assert (await slow).status == 200
        await peer.close()

    run_virtual(main)


def test_a_waiter_that_is_cancelled_as_it_is_handed_the_connection_loses_it_for_nobody(site: Site) -> None:
    async def main() -> None:
        peer = site.peer(connections_max=1)
        for _ in range(50):
            first = asyncio.create_task(peer.get("/x"))
            await asyncio.sleep(0)
            second = asyncio.create_task(peer.get("/x"))
            first.add_done_callback(lambda _, second=second: second.cancel())  # type: ignore[misc]
            await asyncio.wait({first, second})
        await peer.get("/x", deadline_s=0.1)

    run_virtual(main)


def test_a_body_beyond_its_bound_is_not_read_and_concerns_the_call(site: Site) -> None:
    read: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(1000):
            read.append(number)
            yield b"x" * 100

    async def main() -> None:
        peer = site.peer(body_bytes_max=1000)
        site.by_path["/v1/big"] = lambda _: site.library.Response(200, content=pieces())
        site.by_path["/v1/fits"] = site.answer(200, content=b"x" * 1000)
        assert len((await peer.get("/fits")).body) == 1000
        error, fault = await failed(peer.get("/big"))
        assert isinstance(error, AnswerTooLargeError)
        assert (fault.kind, fault.code, fault.scope, len(read)) == (Kind.REJECTED, "answer too large", Scope.CALL, 11)
        site.by_path["/v1/big"] = lambda _: site.library.Response(500, content=pieces())
        error, _ = await failed(peer.get("/big"))
        assert isinstance(error, AnswerError)
        assert (len(error.answer.body), len(read) < 700) == (65_536, True)

    run_virtual(main)


def test_a_body_that_comes_packed_unasked_is_not_unpacked(site: Site) -> None:
    async def main() -> None:
        peer = site.peer()
        site.by_path["/v1/x"] = lambda _: site.library.Response(
            200, headers={"content-encoding": "deflate"}, stream=site.library.ByteStream(b"no")
        )
        error, fault = await failed(peer.get("/x"))
        assert (fault.kind, fault.code, fault.scope) == (Kind.PERMANENT, "encoding", Scope.CALL)
        assert "accept-encoding" in str(error)
        _, fault = await failed(peer.get("/x", headers={"Accept-Encoding": "deflate"}))
        assert (fault.kind, fault.code) == (Kind.TRANSIENT, "encoding")

    run_virtual(main)


def test_a_stream_is_read_piece_by_piece_each_within_the_deadline(site: Site) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5):
            await asyncio.sleep(0.4)
            yield b"%d" % number
        await asyncio.sleep(60)
        yield b"too late"

    async def main() -> None:
        peer = site.peer(deadline_s=0.5, connections_max=1)
        site.by_path["/v1/x"] = lambda _: site.library.Response(200, content=pieces(), headers={"x-a": "1"})
        async with peer.stream("GET", "/x") as answer:
            assert (answer.status, answer.headers["x-a"], answer.epoch) == (200, "1", peer.epoch)
            assert [await answer.read() for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
            error, fault = await failed(answer.read())
            assert (type(error), fault.code, fault.scope, peer.state) == (TimeoutError, "timeout", Scope.CALL, State.UP)
        site.by_path["/v1/y"] = site.answer(200, content=b"short")
        async with peer.stream("GET", "/y") as answer:
            assert b"".join([piece async for piece in answer]) == b"short"
        site.by_path["/v1/z"] = site.answer(404)
        with pytest.raises(AnswerError):
            async with peer.stream("GET", "/z"):
                pytest.fail("it is not 2xx")
        with pytest.raises(KeyError):
            async with peer.stream("GET", "/y"):
                raise KeyError  # Of the caller: no evidence, and the place is free again.
        await peer.get("/y", deadline_s=0.1)
        assert peer.state is State.UP

    run_virtual(main)


def test_a_stream_that_breaks_counts_against_a_peer_that_answers_nobody(site: Site) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise site.library.ReadError("broken")

    async def main() -> None:
        peer = site.peer()
        site.by_path["/v1/x"] = lambda _: site.library.Response(200, content=pieces())
        for probe, scope, state in ((200, Scope.CALL, State.UP), (500, Scope.DEPENDENCY, State.DOWN)):
            await asyncio.sleep(2.0)
            site.probe = probe
            async with peer.stream("GET", "/x") as answer:
                assert await answer.read() == b"one"
                _, fault = await failed(answer.read())
            assert (fault.code, fault.scope, peer.state) == ("ECONNRESET", scope, state)
        await peer.close()

    run_virtual(main)


def test_a_body_may_be_sent_piece_by_piece(site: Site) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def main() -> None:
        await site.peer().request("PUT", "/x", content=pieces())
        assert site.requests[0].content == b"ab"

    run_virtual(main)


def test_close_ends_calls_and_those_who_wait_and_leaves_the_users_client_open(site: Site) -> None:
    async def main() -> None:
        client = site.library.AsyncClient(transport=site.library.MockTransport(site.handle), trust_env=False)
        peer = HttpPeer("http://orders/v1", client=client, connections_max=1)
        site.by_path["/v1/slow"] = site.sleeping(60)
        calls = [asyncio.create_task(peer.get("/slow")) for _ in range(3)]
        await asyncio.sleep(0.5)
        await peer.close()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, Stopping)
        assert (peer.state, client.is_closed) == (State.UP, False)
        await peer.get("/x")
        assert len(asyncio.all_tasks()) == 1
        await client.aclose()

    run_virtual(main)


@pytest.mark.parametrize("first", ["the deadline", "close"])
def test_close_in_the_instant_of_a_deadline_ends_everything(site: Site, first: str) -> None:
    async def main() -> None:
        peer = site.peer(probe_path="/none")
        site.by_path["/v1/slow"] = site.sleeping(60)
        loop, closings = asyncio.get_running_loop(), []
        at = loop.time() + 0.5

        def close() -> None:
            closings.append(asyncio.create_task(peer.close()))

        if first == "close":
            loop.call_at(at, close)
        call = asyncio.create_task(peer.get("/slow", deadline_s=0.5))
        await asyncio.sleep(0)
        if first == "the deadline":
            loop.call_at(at, close)
        with pytest.raises((Stopping, TimeoutError)):
            await call
        await closings[0]
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main)


def test_a_wait_that_ends_already_is_not_ended_again() -> None:
    async def main() -> None:
        wire = Wire(httpx2.AsyncClient(trust_env=False), is_own=True, closed=lambda _: None)

        async def wait() -> None:
            async with wire.limit(0.0):
                await asyncio.sleep(60)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        cutting = asyncio.create_task(wire.cut(1.0))
        with pytest.raises(TimeoutError):
            await waiting
        await cutting

    run_virtual(main)


def test_a_stream_that_is_read_after_close_is_told_of_the_end(site: Site) -> None:
    async def main() -> None:
        peer = site.peer()
        site.by_path["/v1/x"] = site.answer(200, content=b"short")
        async with peer.stream("GET", "/x") as answer:
            await peer.close()
            with pytest.raises(Stopping):
                await answer.read()
        assert peer.state is State.UP

    run_virtual(main)


# The throttle.


async def sent_of(site: Site, peer: HttpPeer, calls: int) -> tuple[int, int]:
    """How many of so many calls reach the peer, and how many are refused here."""
    before, refused = site.count("GET"), 0
    for _ in range(calls):
        try:
            await peer.get("/x")
        except AnswerError:
            continue
        except Unavailable as exc:
            refusal = exc
        else:
            continue
        assert (refusal.fault.code, refusal.fault.scope, peer.state) == ("throttled", Scope.CALL, State.UP)
        assert refusal.retry_after_s >= 1.0
        refused += 1
        await asyncio.sleep(0.1)
    return site.count("GET") - before, refused


@pytest.mark.parametrize(("status", "problem"), [(429, None), (503, {"kind": "overloaded", "code": "concurrency"})])
def test_a_peer_that_refuses_is_asked_less_and_as_before_when_it_accepts(site: Site, status: int, problem: object) -> None:
    async def main() -> None:
        peer = site.peer(throttle=Throttle(), rng=random.Random(1))
        headers = {"content-type": "application/problem+json"}
        site.by_path["/v1/x"] = site.answer(status, json=problem, headers=headers)
        sent, refused = await sent_of(site, peer, 500)
        assert sent + refused == 500
        assert 0 < sent < 100
        site.by_path["/v1/x"] = site.answer(200)
        await asyncio.sleep(130.0)
        assert await sent_of(site, peer, 100) == (100, 0)

    run_virtual(main)


def test_who_comes_back_at_once_after_a_local_refusal_waits_for_its_turn(site: Site) -> None:
    async def main() -> None:
        peer = site.peer(throttle=Throttle(), rng=random.Random(1))
        site.by_path["/v1/x"] = site.answer(429)
        refusals, began_at = 0, asyncio.get_running_loop().time()
        while refusals < 30:
            error, _ = await failed(peer.get("/x"))
            refusals += isinstance(error, Unavailable)
        waited_s = asyncio.get_running_loop().time() - began_at - 0.01 * site.count("GET")
        assert waited_s > 0.1, "virtual seconds"

    run_virtual(main)


@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_peer_that_accepts_meets_no_throttle_though_it_fails_at_the_calls(site: Site, status: int) -> None:
    async def main() -> None:
        peer = site.peer(throttle=Throttle(), rng=random.Random(1))
        site.by_path["/v1/x"] = site.answer(status)
        assert await sent_of(site, peer, 200) == (200, 0)

    run_virtual(main)


def test_calls_that_the_peer_has_not_heard_of_do_not_count_in_the_throttle(site: Site) -> None:
    async def main() -> None:
        peer = site.peer(throttle=Throttle(), rng=random.Random(1), connections_max=1)
        for _ in range(50):
            await failed(peer.get("/x", deadline_s=0.0))
            await failed(peer.get("/x", headers={"x": "\n"}))
        site.by_path["/v1/slow"] = site.sleeping(5.0)
        slow = asyncio.create_task(peer.get("/slow"))
        await asyncio.sleep(0)
        await asyncio.gather(*(failed(peer.get("/x", deadline_s=0.1)) for _ in range(50)))
        await slow
        assert await sent_of(site, peer, 50) == (50, 0)

    run_virtual(main)


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan")])
def test_a_call_that_is_late_already_is_not_sent_and_nobody_is_asked_why(site: Site, deadline_s: float) -> None:
    async def main() -> None:
        peer = site.peer()
        _, fault = await failed(peer.get("/x", deadline_s=deadline_s))
        assert (fault.kind, fault.code, fault.scope, fault.source) == (Kind.TRANSIENT, "deadline over", Scope.CALL, "orders")
        assert site.requests == []

    run_virtual(main)


def test_a_call_that_is_given_up_is_no_evidence(site: Site) -> None:
    async def main() -> None:
        peer = site.peer(connections_max=1)
        site.by_path["/v1/slow"] = site.sleeping(60)
        call = asyncio.create_task(peer.get("/slow"))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (peer.state, site.count("HEAD")) == (State.UP, 0)
        await peer.get("/x")

    run_virtual(main)
