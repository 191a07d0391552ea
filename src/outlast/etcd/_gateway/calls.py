"""Calls of the gateway: bounded in number, time and bytes, by way of the members in turn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import TYPE_CHECKING, Any, Final

import httpx2

from outlast import Fault, Kind, OutlastError, Scope
from outlast.etcd._classify import is_stale
from outlast.etcd._errors import EtcdError
from outlast.etcd._gateway.answers import content
from outlast.extend import Pacer, Slots, Wires
from outlast.http import Answer, AnswerTooLargeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from outlast.etcd._gateway.endpoints import Endpoint, Endpoints
    from outlast.extend import Wire

JSON = dict[str, Any]

KEPT_S: Final = 4.0
"""The time for which an idle connection is kept."""
ANSWER_BYTES_MAX: Final = 16 * 2**20
PROBES_MAX: Final = 2
"""Connections beside those of calls, so that a probe never waits for calls that hang."""
DIALLING: Final = "connection.connect_tcp.started"
"""The event of httpcore's `trace` extension."""
CLOSE_S_MAX: Final = 0.3
"""The longest that closing waits for connections to end."""
UNAVAILABLE: Final = 14
"""The number of gRPC's status of a member that cannot serve now."""
NOBODY: Final = "-"
"""Stands for the token where nobody is asked for one."""
NO_AUTH: Final = "authentication is not enabled"
REPEATABLE: Final = frozenset({"kv/range", "lease/keepalive", "lease/timetolive", "maintenance/alarm", "maintenance/status"})
"""The calls which may be done twice, as the second changes nothing."""
ENDED: Final = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)
"""The errors of a connection that ends under a call: one that was kept may have been cut long before."""


class Pools:
    """The connections of calls, which are kept, and those of probes, each of which is new: one that was kept may have been cut
    a moment ago, and says nothing then.
    """

    def __init__(self, tls: ssl.SSLContext, connections_max: int) -> None:
        kept = httpx2.Limits(max_connections=connections_max, max_keepalive_connections=connections_max, keepalive_expiry=KEPT_S)
        new = httpx2.Limits(max_connections=PROBES_MAX, max_keepalive_connections=0)
        self.calls = httpx2.AsyncHTTPTransport(verify=tls, trust_env=False, limits=kept)
        self.probes = httpx2.AsyncHTTPTransport(verify=tls, trust_env=False, limits=new)

    async def aclose(self) -> None:
        """End every connection."""
        await self.calls.aclose()
        await self.probes.aclose()


class Gateway:
    """Asks the members. What fails is raised as it is; nothing is classified here. On one event loop at a time.

    `refusal` returns what to refuse with when nothing may be dialled, or None.
    """

    def __init__(
        self,
        name: str,
        endpoints: Endpoints,
        *,
        login: tuple[str, str] | None,
        tls: ssl.SSLContext | None,
        connections_max: int,
        waiters_max: int,
        connect_timeout_s: float,
        refusal: Callable[[], Exception | None],
    ) -> None:
        self.name = name
        self.endpoints = endpoints
        self.pacer = Pacer()
        self.slots = Slots(name, connections_max, waiters_max)
        # Reading the authorities costs more than a hundred calls, so it is done once, and not where nobody is asked by TLS.
        is_tls = any(each.is_tls for each in endpoints.all)
        self.tls = tls or (httpx2.create_ssl_context(trust_env=False) if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self._login = login
        self._token = ""
        self._logging_in = asyncio.Lock()
        self.wires: Wires[Pools] = Wires(lambda: Pools(self.tls, connections_max))
        self._connect_timeout_s = connect_timeout_s
        self._refusal = refusal

    async def ask(self, path: str, body: JSON, deadline_s: float, *, to: Endpoint | None = None) -> JSON:
        """Ask, and return what the answer holds. One call is one request, but that it goes on to the next member if one cannot be
        reached, and that a token which is too old is renewed once: neither has done anything yet. What is `REPEATABLE` is asked
        once more on a new connection if its own ends.
        """
        began_at = asyncio.get_running_loop().time()
        if not deadline_s > 0:
            text = f"{self.name}: the deadline of the call, {deadline_s:g} s, was over before it was sent"
            raise OutlastError(text, Fault(Kind.TRANSIENT, "deadline over", text, self.name, Scope.CALL))
        sent = _encoded(body)
        await self.slots.take(deadline_s)
        try:
            if (refusal := self._refusal()) is not None:
                raise refusal
            first = self.endpoints.current
            try:
                try:
                    return await self._ask_until(began_at + deadline_s, path, sent, to)
                except ENDED:
                    if path not in REPEATABLE:
                        raise
                    # The others that were kept may have ended with it.
                    self.wires.retire()
                    return await self._ask_until(began_at + deadline_s, path, sent, to)
            except TimeoutError:
                # It may have been done, so only the next call asks the next member.
                self.endpoints.failed(to or first)
                raise
        finally:
            self.slots.give_back()

    async def ask_as_probe(self, path: str, body: JSON, limit_s: float, to: Endpoint) -> JSON:
        """Ask one member, on a connection beside those of calls."""
        async with self.limit(limit_s) as wire:
            return await self._with_token(wire, path, _encoded(body), to, is_probe=True)

    async def headers(self, wire: Wire[Pools]) -> dict[str, str]:
        """Return the headers of a request that is sent by other means: who asks."""
        return await self._headers(wire, None, is_probe=False)

    @contextlib.asynccontextmanager
    async def limit(self, seconds: float) -> AsyncGenerator[Wire[Pools]]:
        """Lend the connections for a block, which ends after so long, or when everything is closed. Raises `TimeoutError`."""
        with self.wires.lent() as wire:
            async with wire.limit(seconds):
                yield wire

    def forget_token(self) -> bool:
        """Log in before the next call, if there is anybody to log in as."""
        self._token = ""
        return self._login is not None

    async def close(self) -> None:
        """End every call and every connection, within a limit."""
        self.slots.refuse(self.wires.closed)
        self._token = ""
        await self.wires.cut(CLOSE_S_MAX)
        # A lock belongs to the event loop in which somebody waited for it; the next use may be in another one.
        self._logging_in = asyncio.Lock()

    # Inside.

    async def _ask_until(self, ends_at: float, path: str, body: bytes, to: Endpoint | None) -> JSON:
        async with self.limit(ends_at - asyncio.get_running_loop().time()) as wire:
            return await self._with_token(wire, path, body, to)

    async def _with_token(
        self, wire: Wire[Pools], path: str, body: bytes, to: Endpoint | None, *, is_probe: bool = False
    ) -> JSON:
        headers = await self._headers(wire, to, is_probe=is_probe)
        try:
            return await self._in_turn(wire, path, body, headers, to, is_probe=is_probe)
        except EtcdError as error:
            # It was refused before anything was done, so once more is no repetition.
            if not is_stale(error) or self._login is None:
                raise
            if self._token == headers.get("authorization", NOBODY):
                self._token = ""
        headers = await self._headers(wire, to, is_probe=is_probe)
        return await self._in_turn(wire, path, body, headers, to, is_probe=is_probe)

    async def _headers(self, wire: Wire[Pools], to: Endpoint | None, *, is_probe: bool) -> dict[str, str]:
        if self._login is None:
            return {}
        if not self._token:
            async with self._logging_in:
                # Whoever was first has logged in for all.
                if not self._token:
                    self._token = await self._log_in(wire, self._login, to, is_probe=is_probe)
        return {} if self._token == NOBODY else {"authorization": self._token}

    async def _log_in(self, wire: Wire[Pools], login: tuple[str, str], to: Endpoint | None, *, is_probe: bool) -> str:
        body = _encoded({"name": login[0], "password": login[1]})
        try:
            told = await self._in_turn(wire, "auth/authenticate", body, {}, to, is_probe=is_probe)
        except EtcdError as error:
            if NO_AUTH in error.said:
                # It asks nobody who they are, and refuses a token that it does not know.
                return NOBODY
            raise
        return str(told.get("token", ""))

    async def _in_turn(
        self,
        wire: Wire[Pools],
        path: str,
        body: bytes,
        headers: dict[str, str],
        to: Endpoint | None,
        *,
        is_probe: bool,
    ) -> JSON:
        failure: Exception | None = None
        for endpoint in (to,) if to is not None else self.endpoints.in_turn():
            try:
                return await self._send(wire, endpoint, path, body, headers, is_probe=is_probe)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
                # It was not sent.
                self.endpoints.failed(endpoint)
                failure = exc
            except httpx2.TransportError:
                # It may have been done, so only the next call asks the next member.
                self.endpoints.failed(endpoint)
                raise
            except EtcdError as error:
                if error.grpc_code == UNAVAILABLE:
                    self.endpoints.failed(endpoint)
                raise
        assert failure is not None  # noqa: S101 - there is at least one member
        raise failure

    async def _send(
        self,
        wire: Wire[Pools],
        endpoint: Endpoint,
        path: str,
        body: bytes,
        headers: dict[str, str],
        *,
        is_probe: bool,
    ) -> JSON:
        asked = f"{self.name}: {path}"
        request = httpx2.Request(
            "POST",
            f"{endpoint.url}/v3/{path}",
            headers={"accept-encoding": "identity", "user-agent": "outlast", "content-type": "application/json", **headers},
            content=body,
            # The deadline is ours, and bounds all of it; a dial that hangs is known for one before.
            extensions={
                "timeout": {"connect": self._connect_timeout_s, "read": None, "write": None, "pool": None},
                "trace": self._pace_probe if is_probe else self._pace,
            },
        )
        pool = wire.client.probes if is_probe else wire.client.calls
        response = await pool.handle_async_request(request)
        async with contextlib.aclosing(response):
            read = bytearray()
            async for piece in response.aiter_bytes():
                read += piece
                if len(read) > ANSWER_BYTES_MAX:
                    raise AnswerTooLargeError(asked, response.status_code, ANSWER_BYTES_MAX)
            return content(asked, Answer(response.status_code, dict(response.headers), bytes(read)))

    async def _pace(self, event: str, _info: object) -> None:
        """Wait for this call's turn to dial, and do not when etcd has gone down."""
        if event == DIALLING:
            await self.pacer.turn()
            if (refusal := self._refusal()) is not None:
                raise refusal

    async def _pace_probe(self, event: str, _info: object) -> None:
        if event == DIALLING:
            await self.pacer.turn()


def _encoded(body: JSON) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
