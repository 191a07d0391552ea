"""The client: one server, and what all its streams share."""

from __future__ import annotations

import random
import secrets
from typing import TYPE_CHECKING, Any, Final, Self

from outlast import ConfigurationError, RetryBudget
from outlast.admission import Throttle, Throttler
from outlast.http import HttpPeer
from outlast.streams._client.asking import Asking, Request, own_classifiers
from outlast.streams._client.decisions.failures import Asked
from outlast.streams._client.decisions.retrying import RATIO, Effect, Rule
from outlast.streams._client.decisions.sequences import Sequences
from outlast.streams._client.listed import StreamInfo, VolumeCheck, VolumeUsage, stream_info, volume_check, volume_usage
from outlast.streams._client.paths import BESIDE, PROTOCOL, USAGE, VERIFY, checked, path_of
from outlast.streams._client.stream import ClientStream
from outlast.streams._client.values import BYTES_TYPE, body_of
from outlast.streams._client.writing import Writers
from outlast.streams._errors import OutcomeUnknownError, StreamExistsError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping
    from types import TracebackType

    from outlast.http import Answer

THROTTLE: Final = Throttle()
BODY_BYTES_MAX: Final = 64 << 20
PAGE: Final = 1000
VERIFY_S: Final = 3600.0
ID_BYTES: Final = 12
"""Of the identity of a producer: two clients of 2^96 are never the same. Never drawn from `rng`, which a test may have seeded."""


class Client:
    """Streams of a server: a node of ours, or any other of the Durable Streams protocol.

        async with Client("http://127.0.0.1:4437", token=token) as client:
            orders = await client.create("orders", content_type="application/json", exist_ok=True)
            await orders.append({"id": 17})
            async for batch in orders.read(follow=True):
                print(batch.messages)

    **It never says that something failed when nobody knows.** It tries again what may succeed, with waits that are each drawn by
    chance, within the deadline, and within a budget that all its requests share (a tenth of them, and three a second); while
    the server is away, those who wait are let go over a short ramp. What the server refuses too often is refused here
    (`throttle`).

    `peer` is the server as a dependency, for `needs=client.peer`; a service opens and closes it. It belongs to one event loop;
    from threads use `BlockingClient`. A process that was forked from one with a client makes its own.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        prefix: str = PROTOCOL,
        name: str = "",
        headers: Mapping[str, str] | None = None,
        client: Any = None,  # noqa: ANN401 - an AsyncClient of httpx2 or httpx, as HttpPeer takes it
        deadline_s: float = 30.0,
        attempt_s: float = 10.0,
        connections_max: int = 100,
        body_bytes_max: int = BODY_BYTES_MAX,
        throttle: Throttle = THROTTLE,
        tls: ssl.SSLContext | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Nothing is dialled before the first request. Raises `ConfigurationError` for what cannot work.

        `url` is that of the server, `prefix` the path below which it has the streams of the protocol. `deadline_s` bounds a
        request with all its attempts, `attempt_s` one attempt; to find out whether the server answers others may take a second
        more. Each tail takes one of `connections_max`. `body_bytes_max` bounds what one answer may hold.
        """
        if not attempt_s > 0:
            raise ConfigurationError(f"attempt_s of a client is above 0, not {attempt_s}")
        bearer = {} if token is None else {"authorization": f"Bearer {token}"}
        self.peer = HttpPeer(
            url,
            name=name,
            client=client,
            headers={**(headers or {}), **bearer},
            deadline_s=deadline_s,
            connections_max=connections_max,
            body_bytes_max=body_bytes_max,
            tls=tls,
            classifiers=own_classifiers(),
            rng=rng,
        )
        self._prefix = "/" + prefix.strip("/") if prefix.strip("/") else ""
        self._id = secrets.token_hex(ID_BYTES)
        self._ids = 0
        rule = Rule(rng or random.Random(), budget=RetryBudget(ratio=RATIO))
        throttler = Throttler(self.peer.name, throttle, rng=rng)
        self._asking = Asking(self.peer, rule, throttler, deadline_s=deadline_s, attempt_s=attempt_s)
        self._writers = Writers(lambda: Sequences(self._new_id))

    def __repr__(self) -> str:
        """Show the server and its state."""
        return f"<Client {self.peer.name} {self.peer.state.value}>"

    async def __aenter__(self) -> Self:
        """Make ready for use on the running event loop; nothing is asked."""
        await self.peer.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End every request and every connection."""
        await self.close()

    async def close(self) -> None:
        """End every request, with `Stopping`, and every connection."""
        await self.peer.close()

    def stream(self, name: str, *, content_type: str = "") -> ClientStream:
        """Return a stream by its name, whether there is one or not: nothing is asked.

        The first append asks for its content type, unless it is given here. Raises `ValueError` for a name that no URL can have.
        """
        return ClientStream(checked(name), self._prefix, self._asking, self._writers, content_type)

    async def create(
        self,
        name: str,
        *,
        content_type: str = BYTES_TYPE,
        ttl_s: int | None = None,
        expires_at: str | None = None,
        data: object = None,
        closed: bool = False,
        exist_ok: bool = False,
        deadline_s: float | None = None,
    ) -> ClientStream:
        """Create a stream, with its first data if there is some, and return it.

        `ttl_s`: it is deleted after so many seconds without a read or an append; `expires_at`: at that time (RFC 3339). `closed`:
        it takes no more than `data`. `exist_ok`: one of the same name, content type, expiry and closure is as good, and `data` is
        then not stored.

        Raises `StreamExistsError`, and `OutcomeUnknownError` when nobody knows whether it was made, or by whom.
        """
        stream = self.stream(name, content_type=content_type)
        headers = {"content-type": content_type}
        if ttl_s is not None:
            headers["stream-ttl"] = str(ttl_s)
        if expires_at is not None:
            headers["stream-expires-at"] = expires_at
        if closed:
            headers["stream-closed"] = "true"
        content = b"" if data is None else body_of(data, content_type)
        asked = Asked(name, Effect.SAME, "create", size=len(content))
        request = Request(asked, "PUT", path_of(self._prefix, name), headers=headers, content=content)
        reply = await self._asking.ask(request, deadline_s)
        if reply.answer.status != 201 and not exist_ok:
            if reply.unsure:
                raise OutcomeUnknownError(name, "there is one, and whether it was made by this or before is not known")
            raise StreamExistsError(name, "there is one already, with the same options: allow that by exist_ok=True")
        return stream

    # Beside the protocol: for a node of ours.

    async def list(self, prefix: str = "", *, deadline_s: float | None = None) -> AsyncGenerator[StreamInfo]:
        """Yield the streams whose names begin with `prefix`, in the order of their names. Each page has `deadline_s`."""
        after: str | None = None
        while True:
            params = {"limit": str(PAGE), "prefix": prefix} | ({} if after is None else {"after": after})
            found = (await self._ask_node("GET", BESIDE, "list", params=params, deadline_s=deadline_s)).json()
            for row in found["streams"]:
                yield stream_info(row)
            after = found["next"]
            if after is None:
                return

    async def usage(self, *, deadline_s: float | None = None) -> tuple[VolumeUsage, ...]:
        """Return the disks of the node: the room of each, and the first cause where one refuses."""
        found = (await self._ask_node("GET", USAGE, "usage", deadline_s=deadline_s)).json()
        return tuple(volume_usage(row) for row in found["volumes"])

    async def verify(self, volume: str | None = None, *, deadline_s: float = VERIFY_S) -> tuple[VolumeCheck, ...]:
        """Let the node read every byte of its disks, or of one, and return what it found. It may take long, and mends
        nothing.
        """
        wanted = {} if volume is None else {"volume": volume}
        answer = await self._ask_node("POST", VERIFY, "verify", json=wanted, deadline_s=deadline_s, attempt_s=deadline_s)
        return tuple(volume_check(row) for row in answer.json()["volumes"])

    async def _ask_node(
        self,
        method: str,
        path: str,
        action: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,  # noqa: ANN401 - whatever JSON has
        deadline_s: float | None = None,
        attempt_s: float | None = None,
    ) -> Answer:
        asked = Asked("", Effect.NONE, action, beside=True)
        request = Request(asked, method, path, params, json=json)
        return (await self._asking.ask(request, deadline_s, attempt_s=attempt_s)).answer

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self._id}-{self._ids}"
