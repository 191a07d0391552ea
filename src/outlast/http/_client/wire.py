"""The way to the peer: a client of httpx2 or httpx, and the calls that use it."""

from __future__ import annotations

import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from outlast import ConfigurationError
from outlast.extend import Wire as AnyWire

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    import httpx2

KEPT_S: Final = 4.0
"""The time for which an idle connection is kept. Node.js and uvicorn close theirs after 5 s, others later."""
NO_LIMITS: Final = (None, None, None, None)
NO_EXTENSIONS: Final[Mapping[str, object]] = {}
PROBES_MAX: Final = 2
"""Connections beside those of calls, so that a probe never waits for calls that hang."""


Sent = Any
Request = Any
Response = Any
Url = Any
"""Of one library or the other."""


class Client(Protocol):
    """The part of `httpx2.AsyncClient`, and of `httpx.AsyncClient`, that is used."""

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: Sent = ...,
        json: Sent = ...,
        params: Sent = ...,
        headers: Sent = ...,
        timeout: Sent = ...,
        extensions: Sent = ...,
    ) -> Request:
        """Build a request."""
        ...

    async def send(self, request: Request, *, stream: bool = ..., follow_redirects: bool = ...) -> Response:
        """Send it, and return the answer, its body unread."""
        ...

    async def aclose(self) -> None:
        """End every connection."""
        ...


Wire = AnyWire[Client]


class OwnClient:
    """A transport of httpx2 as a client that does nothing beside: it keeps no cookies, reads neither proxies nor .netrc of the
    environment, and logs no line for each call.
    """

    def __init__(self, transport: httpx2.AsyncHTTPTransport, request: type[httpx2.Request]) -> None:
        self._transport = transport
        self._request = request

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: Sent = None,
        json: Sent = None,
        params: Sent = None,
        headers: Sent = None,
        timeout: Sent = NO_LIMITS,
        extensions: Sent = NO_EXTENSIONS,
    ) -> Request:
        """Build a request; `timeout` are the seconds to connect, read, write, and wait for the pool."""
        limits = dict(zip(("connect", "read", "write", "pool"), timeout, strict=True))
        more = {**extensions, "timeout": limits}
        return self._request(method, url, content=content, json=json, params=params, headers=headers, extensions=more)

    async def send(self, request: Request, *, stream: bool = True, follow_redirects: bool = False) -> Response:
        """Send it, and return the answer, its body unread."""
        del stream, follow_redirects  # A transport knows no other way.
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """End every connection."""
        await self._transport.aclose()


def own_client(name: str, tls: ssl.SSLContext | None, connections_max: int) -> Callable[[], Client]:
    """Return what makes a client of our own. Raises `ConfigurationError` where httpx2 is not installed."""
    try:
        import httpx2  # noqa: PLC0415 - needed only where no client is given
    except ImportError as error:
        msg = f"{name}: httpx2 is not installed: pip install 'outlast[http]', or give a client of your own (client=)"
        raise ConfigurationError(msg) from error
    # Made once: reading the authorities costs more than a hundred requests.
    verify = tls or httpx2.create_ssl_context(trust_env=False)
    limits = httpx2.Limits(
        max_connections=connections_max + PROBES_MAX, max_keepalive_connections=connections_max, keepalive_expiry=KEPT_S
    )
    return lambda: OwnClient(httpx2.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits), httpx2.Request)


def given_client(name: str, client: Client) -> Callable[[], Client]:
    """Return what returns the user's client. Raises `ConfigurationError` for one that is not asynchronous."""
    if not inspect.iscoroutinefunction(client.send):
        msg = f"{name}: client is an AsyncClient of httpx2 or httpx, not {type(client).__name__}"
        raise ConfigurationError(msg)
    mask_lines()
    return lambda: client


class Masking(logging.Filter):
    """Masks the query of a URL of ours in the line that both libraries log at INFO for each call."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(_masked(arg) if getattr(arg, "is_secret", False) else arg for arg in record.args)
        return True


MASKING: Final = Masking()


def mask_lines() -> None:
    """Add the filter to the loggers of both libraries, once. The lines of other clients stay as they are."""
    for name in ("httpx2", "httpx"):
        logging.getLogger(name).addFilter(MASKING)


def secret(url: Url) -> Url:
    """Return the URL as one that is masked in lines. Its text is what it was: a user's `auth` may sign it."""
    return _secret_kind(url.__class__)(url)


@functools.cache
def _secret_kind(kind: type) -> type:
    return kind if getattr(kind, "is_secret", False) else type(kind.__name__, (kind,), {"is_secret": True})


def _masked(url: Url) -> str:
    text, _, query = str(url).partition("?")
    return f"{text}?***" if query else text
