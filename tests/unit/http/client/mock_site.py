"""A peer behind the mock transport of either library, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from outlast import Fault, Unavailable
from outlast.extend import attached
from outlast.http import HttpPeer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Site:
    """What the peer does: `answer` by default, `by_path` where it has one; `probe` answers HEAD."""

    def __init__(self, library: Any = httpx2) -> None:
        self.library = library
        self.requests: list[Any] = []
        self.probe = 200
        self.hangs = False
        self.by_path: dict[str, Callable[[Any], Any]] = {}

    def count(self, method: str) -> int:
        return sum(request.method == method for request in self.requests)

    def answer(self, status: int = 200, **options: Any) -> Callable[[Any], Any]:
        return lambda _: self.library.Response(status, **options)

    def sleeping(self, seconds: float) -> Callable[[Any], Awaitable[Any]]:
        async def answer(_request: Any) -> Any:
            await asyncio.sleep(seconds)
            return self.library.Response(200)

        return answer

    async def handle(self, request: Any) -> Any:
        self.requests.append(request)
        await asyncio.sleep(0.01)
        if self.hangs:
            await asyncio.sleep(3600)
        if request.method == "HEAD":
            return self.library.Response(self.probe)
        answer = self.by_path.get(request.url.path, self.answer())(request)
        return await answer if asyncio.iscoroutine(answer) else answer

    def peer(self, url: str = "http://orders/v1", **options: Any) -> HttpPeer:
        client = self.library.AsyncClient(transport=self.library.MockTransport(self.handle), trust_env=False)
        return HttpPeer(url, client=client, **options)


@pytest.fixture(params=[httpx2, httpx], ids=["httpx2", "httpx"])
def site(request: pytest.FixtureRequest) -> Site:
    return Site(request.param)


async def failed(call: Awaitable[object]) -> tuple[Exception, Fault]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the library's own, often
        await call
    fault = caught.value.fault if isinstance(caught.value, Unavailable) else attached(caught.value)
    assert fault is not None
    return caught.value, fault
