"""Requests come in as the admission says, and free what they hold whenever and however they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_exchange import Exchange, ok
from outlast import Admission, Service
from outlast.admission import Concurrency, Criticality, Queue, Rate, Ticket, Waiting
from outlast.http import AdmissionMiddleware, Ask, EventFeed, EventStream, Token, long_poll
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs("refuses work by")

ONE = Concurrency(limit_min=2, limit_max=2, limit_start=2)


class Work:
    """An application whose requests end when they are told to."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.began = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.began += 1
        await self.release.wait()
        await ok(scope, receive, send)


def inside(admission: Admission) -> tuple[int, int, int]:
    admitter = admission._desk.admitter
    return admitter.in_flight, admitter.waiting, admitter.parked


def test_a_request_too_many_is_429_and_one_that_never_comes_in_413() -> None:
    async def main() -> None:
        admission = Admission("shop", key_rate=Rate(1.0, burst=1))
        app = AdmissionMiddleware(ok, admission)
        assert (await Exchange().run(app)).status == 200
        refused = await Exchange().run(app)
        assert (refused.status, refused.json["code"], refused.json["kind"]) == (429, "rate", "overloaded")
        assert int(refused.headers["retry-after"]) >= refused.json["retry_after_s"] > 0
        assert (await Exchange(client="192.0.2.2").run(app)).status == 200, "another key"
        await asyncio.sleep(refused.json["retry_after_s"])
        assert (await Exchange().run(app)).status == 200, "after the time that was named"

        def costly(*_: object) -> Ask:
            return Ask("k", cost=2.0)

        large = await Exchange().run(AdmissionMiddleware(ok, admission, ask=costly))
        assert (large.status, large.json["code"], "retry-after" in large.headers) == (413, "too large", False)

    run_virtual(main)


def test_a_request_is_asked_about_as_the_user_says() -> None:
    asked: list[tuple[Any, ...]] = []

    def asking(*arguments: Any) -> Ask:
        asked.append(arguments)
        return Ask("k", "t", Criticality.CRITICAL)

    async def main() -> None:
        token = Token("reports", frozenset({"read"}))
        app = AdmissionMiddleware(ok, Admission("shop"), ask=asking)
        await Exchange("DELETE", "/orders/7", {"A": "b"}, extensions={"outlast.token": token}).run(app)
        assert asked == [("DELETE", "/orders/7", [(b"a", b"b")], "192.0.2.1", token)]
        unknown = Exchange()
        unknown.scope["client"] = None
        await unknown.run(app)
        assert asked[1][3:] == ("", None)

    run_virtual(main)


@pytest.mark.parametrize(("body_bytes_max", "announced"), [(1000, 1000), (None, 0)])
def test_a_body_without_a_length_announces_the_largest_that_may_come(body_bytes_max: int | None, announced: int) -> None:
    seen: list[float] = []

    async def main() -> None:
        admission = Admission("shop")
        memory = admission._desk.admitter._memory

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(memory.reserved_bytes)
            await ok(scope, receive, send)

        guarded = AdmissionMiddleware(app, admission, body_bytes_max=body_bytes_max)
        await Exchange("POST", "/orders", {"transfer-encoding": "chunked"}).run(guarded)
        await Exchange("POST", "/orders", {"content-length": "1007"}).run(guarded)
        seen.append(memory.reserved_bytes)

    run_virtual(main)
    assert seen == [announced, 1007, 0]


def test_a_ticket_of_the_server_is_taken_over_and_released() -> None:
    async def main() -> None:
        admission = Admission("shop", key_rate=Rate(1.0, burst=1))
        ticket = admission.try_enter(key="a")
        assert isinstance(ticket, Ticket)
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.extend((scope["extensions"]["outlast.ticket"], inside(admission)))
            await ok(scope, receive, send)

        exchange = await Exchange(extensions={"outlast.ticket": ticket}).run(AdmissionMiddleware(app, admission))
        assert (exchange.status, seen, inside(admission)) == (200, [ticket, (1, 0, 0)], (0, 0, 0))

    run_virtual(main)


@pytest.mark.parametrize("exc", [ValueError("a bug"), asyncio.CancelledError()])
def test_a_slot_is_free_in_the_step_in_which_the_work_ends(exc: BaseException) -> None:
    async def main() -> None:
        admission = Admission("shop")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert inside(admission) == (1, 0, 0)
            raise exc

        with pytest.raises(type(exc)):
            await AdmissionMiddleware(app, admission)(*parts(Exchange()))
        assert inside(admission) == (0, 0, 0)

    run_virtual(main)


@pytest.mark.parametrize(("status", "ok"), [(200, True), (304, True), (404, None), (500, False), (503, False)])
def test_only_a_whole_answer_that_is_not_the_callers_fault_says_how_long_work_takes(status: int, ok: bool | None) -> None:  # noqa: FBT001
    released: list[bool | None] = []

    class Watched:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...
        def park(self) -> None: ...
        def unpark(self) -> None: ...
        def release(self, *, ok: bool | None) -> None:
            released.append(ok)

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b"y"})

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def polled(scope: Any, receive: Any, send: Any) -> None:
        await long_poll(scope, receive, asyncio.sleep(1))
        await whole(scope, receive, send)

    async def main() -> None:
        for app in (whole, half, polled):
            await Exchange(extensions={"outlast.ticket": Watched()}).run(AdmissionMiddleware(app, Admission("shop")))

    run_virtual(main)
    assert released == [ok, None, None]


def test_a_request_waits_in_the_queue_and_sees_all_of_its_messages() -> None:
    async def main() -> None:
        admission, work = Admission("shop", concurrency=ONE), Work()
        held = [asyncio.create_task(Exchange().run(AdmissionMiddleware(work, admission))) for _ in range(2)]
        bodies: list[bytes] = []

        async def reads(scope: Any, receive: Any, send: Any) -> None:
            bodies.append((await receive())["body"])
            await ok(scope, receive, send)

        waiting = asyncio.create_task(Exchange("POST", body=b"an order").run(AdmissionMiddleware(reads, admission)))
        await asyncio.sleep(0.001)
        assert inside(admission) == (2, 1, 0)
        work.release.set()
        assert (await waiting).status == 200
        assert bodies == [b"an order"]
        await asyncio.wait(held)
        assert inside(admission) == (0, 0, 0)

    run_virtual(main)


def test_a_client_that_leaves_the_queue_costs_no_slot_and_no_token() -> None:
    async def main() -> None:
        admission, work = Admission("shop", concurrency=ONE, rate=Rate(0.001, burst=3), queue=Queue(waiters_max=2000)), Work()
        app = AdmissionMiddleware(work, admission)
        held = [asyncio.create_task(Exchange().run(app)) for _ in range(2)]
        await asyncio.sleep(0.001)
        for number in range(1000):
            gone = Exchange()
            task = asyncio.create_task(gone.run(app))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            gone.leave()
            await task
            assert gone.sent == []
        assert inside(admission) == (2, 0, 0)
        live = asyncio.create_task(Exchange().run(app))
        await asyncio.sleep(0.001)
        assert inside(admission) == (2, 1, 0)
        work.release.set()
        assert (await live).status == 200
        assert work.began == 3
        await asyncio.wait(held)

    run_virtual(main)


@pytest.mark.parametrize("asks", ["the server", "the middleware"])
@pytest.mark.parametrize("more_body", [False, True])
def test_one_whose_time_in_the_queue_is_over_is_refused(asks: str, more_body: bool) -> None:  # noqa: FBT001
    async def main() -> None:
        admission, work = Admission("shop", concurrency=ONE), Work()
        held = [admission.try_enter() for _ in range(2)]
        waiting = admission.arrive() if asks == "the server" else None
        exchange = Exchange("POST", extensions={} if waiting is None else {"outlast.ticket": waiting})
        exchange._body = [{"type": "http.request", "body": b"x", "more_body": more_body}]
        await exchange.run(AdmissionMiddleware(work, admission))
        assert (exchange.status, exchange.json["code"], work.began) == (503, "concurrency", 0)
        assert inside(admission) == (len(held), 0, 0)

    run_virtual(main)


@pytest.mark.parametrize("more_body", [False, True])
def test_a_place_in_the_queue_that_the_server_has_got_is_taken_over(more_body: bool) -> None:  # noqa: FBT001
    async def main() -> None:
        admission = Admission("shop", concurrency=ONE)
        held = [admission.try_enter() for _ in range(2)]
        waiting = admission.arrive()
        assert isinstance(waiting, Waiting)
        exchange = Exchange("POST", extensions={"outlast.ticket": waiting})
        exchange._body = [{"type": "http.request", "body": b"x", "more_body": more_body}]
        task = asyncio.create_task(exchange.run(AdmissionMiddleware(ok, admission)))
        await asyncio.sleep(0.001)
        assert inside(admission) == (2, 1, 0)
        for ticket in held:
            assert isinstance(ticket, Ticket)
            ticket.release()
        await task
        assert (exchange.status, inside(admission)) == (200, (0, 0, 0))
        assert isinstance(exchange.scope["extensions"]["outlast.ticket"], Ticket)

    run_virtual(main)


def test_a_client_that_waits_for_100_continue_gets_none_in_the_queue() -> None:
    async def main() -> None:
        admission, work = Admission("shop", concurrency=ONE), Work()
        held = [asyncio.create_task(Exchange().run(AdmissionMiddleware(work, admission))) for _ in range(2)]
        await asyncio.sleep(0.001)
        expecting = Exchange("POST", headers={"Expect": "100-continue"})
        refused = await expecting.run(AdmissionMiddleware(work, admission))
        assert (refused.status, refused.json["code"], expecting.asked) == (503, "concurrency", 0)
        work.release.set()
        await asyncio.wait(held)

    run_virtual(main)


def parts(exchange: Exchange) -> tuple[Any, Any, Any]:
    return exchange.scope, exchange.receive, exchange.send


def leaving(exchange: Exchange, task: asyncio.Task[Any]) -> None:
    exchange.leave()


def cut(exchange: Exchange, task: asyncio.Task[Any]) -> None:
    task.cancel()


def both(exchange: Exchange, task: asyncio.Task[Any]) -> None:
    exchange.leave()
    task.cancel()


def test_no_slot_is_lost_whenever_a_client_leaves_or_is_cut() -> None:
    """Slots are let go, and whoever was woken by that leaves before the loop runs it, or some steps later."""

    async def main() -> None:
        admission, feed = Admission("shop", concurrency=ONE), EventFeed()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/events":
                await EventStream(feed.watch())(scope, receive, send)
            elif scope["path"] == "/poll":
                await long_poll(scope, receive, feed.wait(), wait_s=0.01)
            await ok(scope, receive, send)

        guarded = AdmissionMiddleware(app, admission)
        for number in range(10_000):
            held = [admission.try_enter(key="held") for _ in range(2)]
            exchange = Exchange(path=("/events", "/poll", "/")[number % 3])
            task = asyncio.create_task(exchange.run(guarded))
            for _ in range(3):
                await asyncio.sleep(0)
            for ticket in held:
                assert isinstance(ticket, Ticket)
                ticket.release(ok=None)
            for _ in range(number // 9 % 8):
                await asyncio.sleep(0)
            (leaving, cut, both)[number // 3 % 3](exchange, task)
            await asyncio.wait({task})
            assert (number, inside(admission), feed.viewers) == (number, (0, 0, 0), 0)
        assert (await Exchange().run(AdmissionMiddleware(ok, admission))).status == 200

    run_virtual(main)


@pytest.mark.parametrize("path", ["/events", "/poll"])
@pytest.mark.parametrize("turns", range(6))
def test_a_viewer_that_leaves_is_gone_before_the_first_byte_and_after_it(path: str, turns: int) -> None:
    async def main() -> float:
        admission, feed = Admission("shop"), EventFeed()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if path == "/events":
                await EventStream(feed.watch())(scope, receive, send)
            else:
                await long_poll(scope, receive, feed.wait())

        viewers = [Exchange(path=path) for _ in range(50)]
        tasks = [asyncio.create_task(viewer.run(AdmissionMiddleware(app, admission))) for viewer in viewers]
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns == 5:
            await asyncio.sleep(1)
            assert inside(admission) == (0, 0, 50)
        for viewer in viewers:
            viewer.leave()
        await asyncio.wait(tasks)
        assert inside(admission) == (0, 0, 0)
        assert feed.viewers == 0
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == (1 if turns == 5 else 0)


@pytest.mark.parametrize("answers", ["stream", "poll"])
def test_where_as_many_are_parked_as_may_be_it_is_refused(answers: str) -> None:
    async def main() -> None:
        admission, feed = Admission("shop", parked_max=1), EventFeed()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await EventStream(feed.watch())(scope, receive, send)

        first = Exchange()
        task = asyncio.create_task(first.run(AdmissionMiddleware(app, admission)))
        await asyncio.sleep(0.01)
        second = await Exchange().run(AdmissionMiddleware(app, admission))
        assert (second.status, second.json["kind"]) == (503, "overloaded")
        assert inside(admission) == (0, 0, 1)
        first.leave()
        await task
        assert inside(admission) == (0, 0, 0)

    run_virtual(main)


def test_one_who_comes_while_the_service_stops_is_told_to_go_elsewhere() -> None:
    async def main() -> None:
        admission, service = Admission("shop"), Service("shop")
        admission.attach(service)
        service.gate.close("SIGTERM")
        exchange = await Exchange().run(AdmissionMiddleware(ok, admission))
        assert (exchange.status, exchange.json["code"], exchange.headers["connection"]) == (503, "stopping", "close")

    run_virtual(main)


def test_what_is_no_request_passes() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["seen"] = True

    async def main() -> None:
        scope: dict[str, Any] = {"type": "lifespan"}
        await AdmissionMiddleware(app, Admission("shop"))(scope, None, None)  # type: ignore[arg-type] # unused here
        assert scope == {"type": "lifespan", "seen": True}

    run_virtual(main)
