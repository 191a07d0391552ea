"""`HttpPeer` refuses what cannot work, and shows no secret."""

from __future__ import annotations

import pickle
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from mock_site import Site, failed, site

from outlast import ConfigurationError, Kind, OutlastError
from outlast.extend import attached
from outlast.http import Answer, AnswerError, AnswerTooLargeError, HttpPeer
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["site"]
pytestmark = pytest.mark.expected_logs
SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ftp://shop:hunter2@orders/", {}),
        ("orders:hunter2/v1", {}),
        ("http://", {}),
        ("http://shop:hunter2@orders:port/", {}),
        ("http://orders/?token=hunter2", {}),
        ("http://orders/#hunter2", {}),
        ("http://orders/", {"headers": {"authorization": "Bearer hunter2\n"}}),
        ("http://orders/", {"headers": {"bad name": "hunter2"}}),
        ("http://orders/", {"client": httpx.Client(trust_env=False)}),
        ("http://orders/", {"connections_max": 0}),
        ("http://orders/", {"body_bytes_max": 0}),
        ("http://orders/", {"deadline_s": 0.0}),
        ("http://orders/", {"deadline_s": float("nan")}),
        ("http://orders/", {"connect_timeout_s": float("inf")}),
    ],
)
def test_what_cannot_work_is_refused_at_once_and_shows_no_secret(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HttpPeer(url, **options)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_without_httpx2_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigurationError, match=r"outlast\[http\]"):
        HttpPeer("http://orders/")


def test_secrets_are_in_no_text_of_an_answer_an_error_or_a_line(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []

    def secrets() -> Iterator[dict[str, Any]]:
        yield {"path": f"/x?token={SECRET}"}
        yield {"path": "/x", "params": {"token": SECRET}}
        yield {"path": "/x", "headers": {"authorization": f"Bearer {SECRET}"}}
        yield {"path": "/x", "headers": {"x-key": f"{SECRET}\n"}}
        yield {"path": "/x", "headers": {f"x {SECRET[:0]}": SECRET}}
        yield {"path": "/x", "content": SECRET}

    async def main() -> None:
        peer = site.peer(f"http://shop:{SECRET}@orders/v1")
        for status in (200, 404, 500):
            site.by_path["/v1/x"] = site.answer(status, content=SECRET.encode(), headers={"set-cookie": SECRET})
            for options in secrets():
                try:
                    said.append(repr(await peer.post(**options)))
                except (AnswerError, OutlastError) as error:
                    said.append(f"{error} {error!r} {attached(error)}")
        said.extend((repr(peer), peer.name))

    with caplog.at_level("DEBUG"):
        run_virtual(main)
    assert len(said) == 20
    lines = [record.getMessage() for record in caplog.records if record.name == site.library.__name__]
    assert any("/v1/x?***" in line for line in lines)
    assert SECRET not in "\n".join([*said, caplog.text])


def test_a_line_of_another_client_is_left_as_it_is(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        site.peer()
        transport = site.library.MockTransport(site.handle)
        async with site.library.AsyncClient(transport=transport, trust_env=False) as client:
            await client.get("http://others/?page=7")

    with caplog.at_level("INFO"):
        run_virtual(main)
    assert "http://others/?page=7" in caplog.text


def test_an_auth_of_the_users_client_signs_the_url_as_it_is_sent(site: Site) -> None:
    signed: list[str] = []

    def sign(request: Any) -> Any:
        signed.append(str(request.url))
        return request

    async def main() -> None:
        transport = site.library.MockTransport(site.handle)
        async with site.library.AsyncClient(transport=transport, trust_env=False, auth=sign) as client:
            await HttpPeer("http://orders/v1", client=client).get("/x?token=1")

    run_virtual(main)
    assert signed == ["http://orders/v1/x?token=1"]


def test_the_errors_travel_to_another_process() -> None:
    answer = Answer(404, {"x-a": "1"}, b"no")
    for error in (AnswerError("orders: GET /", answer), AnswerTooLargeError("orders: GET /", 200, 10)):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert (type(again), str(again), again.status) == (type(error), str(error), error.status)


def test_a_transport_of_its_own_belongs_to_one_event_loop_after_another() -> None:
    peer = HttpPeer("http://orders")

    async def main(*, close: bool) -> None:
        # A path that is none: the transport is made, and nothing is dialled.
        _, fault = await failed(peer.get("/\x00"))
        assert (fault.kind, fault.code) == (Kind.REJECTED, "bad URL")
        if close:
            await peer.close()

    run_virtual(lambda: main(close=False))
    run_virtual(lambda: main(close=True))


def test_it_belongs_to_one_event_loop_after_another(site: Site) -> None:
    peer = site.peer()

    async def main() -> None:
        await peer.get("/x")
        async with peer.stream("GET", "/x") as answer, aclosing(aiter(answer)) as pieces:  # type: ignore[type-var]
            assert [piece async for piece in pieces] == []
        await peer.close()

    run_virtual(main)
    run_virtual(main)

    async def unclosed() -> None:
        await peer.get("/x")

    run_virtual(unclosed)
    run_virtual(main)
