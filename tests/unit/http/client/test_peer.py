"""`HttpPeer` in virtual time: calls, second looks and probes, over the mock transports of both libraries."""

from __future__ import annotations

import asyncio
import base64

import pytest
from mock_site import Site, failed, site

from outlast import Classifiers, Fault, Kind, Scope, State, Unavailable
from outlast.http import AnswerError
from outlast.testing import run_virtual

__all__ = ["site"]
pytestmark = pytest.mark.expected_logs


def test_a_call_is_one_request_below_the_url_and_returns_the_answer(site: Site) -> None:
    async def main() -> None:
        site.by_path["/v1/orders"] = site.answer(201, json={"id": 17}, headers=[("x-a", "1"), ("X-A", "2")])
        peer = site.peer("http://shop:p%40ss@orders:8080/v1/", headers={"X-Tenant": "7"}, deadline_s=4.0)
        answer = await peer.post("/orders?full=1", json={"item": 3}, params=None, headers={"Idempotency-Key": "k"})
        assert (answer.status, answer.json(), answer.text, answer.headers["x-a"]) == (201, {"id": 17}, '{"id":17}', "1, 2")
        [request] = site.requests
        assert (request.method, request.url.raw_path, request.url.host, request.url.port) == (
            "POST",
            b"/v1/orders?full=1",
            "orders",
            8080,
        )
        assert request.headers["authorization"] == "Basic " + base64.b64encode(b"shop:p@ss").decode()
        assert (request.headers["x-tenant"], request.headers["idempotency-key"]) == ("7", "k")
        assert (request.headers["accept-encoding"], request.headers["x-request-timeout"]) == ("identity", "4.000")
        assert request.content.replace(b" ", b"") == b'{"item":3}'
        assert peer.name == "orders:8080"
        for path, raw in (
            ("", b"/v1"),
            ("?a=b", b"/v1?a=b"),
            ("x", b"/v1/x"),
            ("//evil/x", b"/v1/evil/x"),
            ("http://evil/", b"/v1/http://evil/"),
        ):
            await peer.get(path)
            assert (site.requests[-1].url.raw_path, site.requests[-1].url.host) == (raw, "orders")

    run_virtual(main)


def test_another_status_than_those_that_are_accepted_is_an_error_that_has_the_answer(site: Site) -> None:
    async def main() -> None:
        peer = site.peer()
        site.by_path["/v1/x"] = site.answer(404, content=b"no such thing")
        error, fault = await failed(peer.get("/x?token=1"))
        assert isinstance(error, AnswerError)
        assert (error.status, error.answer.body, fault.kind, fault.scope, fault.source) == (
            404,
            b"no such thing",
            Kind.REJECTED,
            Scope.CALL,
            "orders",
        )
        assert str(error) == "orders: GET /x: answered 404 Not Found"
        assert (await peer.get("/x", accept=(404,))).status == 404
        _, fault = await failed(peer.get("/y", accept=()))
        assert (fault.kind, fault.code) == (Kind.REJECTED, "HTTP 200")
        site.by_path["/v1/x"] = site.answer(302, headers={"location": "/v1/y"})
        _, fault = await failed(peer.get("/x"))
        assert (fault.kind, fault.scope, fault.code) == (Kind.PERMANENT, Scope.CALL, "HTTP 302")
        assert len(site.requests) == 4, "no redirect was followed"
        assert peer.state is State.UP

    run_virtual(main)


def test_a_deadline_counts_against_the_call_alone_if_the_peer_answers_a_probe(site: Site) -> None:
    async def main() -> None:
        peer = site.peer()
        site.by_path["/v1/slow"] = site.sleeping(60.0)
        error, fault = await failed(peer.get("/slow", deadline_s=0.5))
        assert (str(error), type(error)) == ("orders: GET /slow: no answer within 0.5 s", TimeoutError)
        assert (fault.kind, fault.code, fault.scope, peer.state) == (Kind.TRANSIENT, "timeout", Scope.CALL, State.UP)
        assert [request.method for request in site.requests] == ["GET", "HEAD"]
        await asyncio.sleep(2.0)
        site.hangs = True
        _, fault = await failed(peer.get("/slow", deadline_s=0.5))
        assert (fault.code, fault.scope, peer.state) == ("timeout", Scope.DEPENDENCY, State.DOWN)
        calls = len(site.requests)
        error, fault = await failed(peer.get("/slow"))
        assert isinstance(error, Unavailable)
        assert (fault.code, len(site.requests)) == ("timeout", calls), "refused at once, and nothing was sent"
        await peer.close()

    run_virtual(main)


@pytest.mark.parametrize("status", [500, 502, 504, 520])
def test_most_of_5xx_count_against_everyone_only_if_the_probe_fails_too(site: Site, status: int) -> None:
    async def main() -> None:
        peer = site.peer()
        site.by_path["/v1/x"] = site.answer(status)
        _, fault = await failed(peer.get("/x"))
        assert (fault.code, fault.scope, peer.state) == (f"HTTP {status}", Scope.CALL, State.UP)
        for _ in range(10):
            await failed(peer.get("/x"))
        assert site.count("HEAD") == 1, "those who wonder share an answer"
        await asyncio.sleep(2.0)
        site.probe = 500
        _, fault = await failed(peer.get("/x"))
        assert (fault.code, fault.scope, peer.state) == (f"HTTP {status}", Scope.DEPENDENCY, State.DOWN)
        await peer.close()

    run_virtual(main)


@pytest.mark.parametrize(("status", "sent"), [(503, {}), (429, {"retry-after": "3"}), (401, {})])
def test_a_peer_that_speaks_for_itself_needs_no_second_look(site: Site, status: int, sent: dict[str, str]) -> None:
    async def main() -> None:
        peer = site.peer()
        site.by_path["/v1/x"] = site.answer(status, headers=sent)
        error, fault = await failed(peer.get("/x"))
        assert isinstance(error, AnswerError)
        assert (fault.scope, peer.state, site.count("HEAD")) == (Scope.DEPENDENCY, State.DOWN, 0)
        wait_s = peer.unavailable().retry_after_s
        assert wait_s >= float(sent.get("retry-after", 0))
        await peer.close()

    run_virtual(main)


def test_credentials_of_the_call_alone_concern_the_call_alone(site: Site) -> None:
    async def main() -> None:
        peer = site.peer()
        site.by_path["/v1/x"] = site.answer(401)
        _, fault = await failed(peer.get("/x", headers={"Authorization": "Bearer of-a-user"}))
        assert (fault.kind, fault.scope, peer.state) == (Kind.PERMANENT, Scope.CALL, State.UP)

    run_virtual(main)


def test_a_rule_of_the_users_decides_before_any_second_look(site: Site) -> None:
    def mine(exc: BaseException, _phase: str) -> Fault | None:
        return Fault(Kind.CONTENDED, "mine", "as I say", scope=Scope.CALL) if isinstance(exc, AnswerError) else None

    async def main() -> None:
        peer = site.peer(classifiers=Classifiers([mine]))
        site.by_path["/v1/x"] = site.answer(500)
        _, fault = await failed(peer.get("/x"))
        assert (fault.code, site.count("HEAD")) == ("mine", 0)

    run_virtual(main)


def test_while_it_stops_nobody_is_asked_for_a_second_look(site: Site) -> None:
    async def main() -> None:
        from outlast import Stop

        peer = site.peer()
        await peer.open()
        peer.stopping(Stop())
        site.by_path["/v1/x"] = site.answer(500)
        _, fault = await failed(peer.get("/x"))
        assert (fault.scope, site.count("HEAD"), peer.state) == (Scope.CALL, 0, State.UP)
        await peer.close()

    run_virtual(main)


@pytest.mark.parametrize(
    ("status", "passes"),
    [
        (200, True),
        (204, True),
        (302, True),
        (403, True),
        (404, True),
        (405, True),
        (401, False),
        (407, False),
        (408, False),
        (425, False),
        (429, False),
        (500, False),
        (503, False),
    ],
)
def test_a_probe_passes_when_somebody_is_there(site: Site, status: int, *, passes: bool) -> None:
    async def main() -> None:
        site.probe = status
        peer = site.peer()
        await peer.look()
        assert (peer.state is State.UP) is passes
        assert str(site.requests[0].url) == "http://orders/v1"
        await peer.close()

    run_virtual(main)


def test_a_probe_asks_as_it_was_told(site: Site) -> None:
    async def main() -> None:
        await site.peer(probe_path="/healthz", probe_method="GET", connect_timeout_s=3.0, headers={"x-api-key": "k"}).probe()
        [request] = site.requests
        assert (request.method, request.url.path, request.headers["x-request-timeout"]) == ("GET", "/healthz", "3.000")
        assert request.headers["x-api-key"] == "k"

    run_virtual(main)
