"""A consumer of a node, as a client uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from outlast.http import AnswerError
from outlast.streams._client.asking import Request
from outlast.streams._client.decisions.failures import Asked
from outlast.streams._client.decisions.retrying import Effect
from outlast.streams._client.listed import ConsumerInfo, consumer_info, delivered_of
from outlast.streams._client.paths import beside
from outlast.streams._errors import StreamError

if TYPE_CHECKING:
    from outlast.http import Answer
    from outlast.streams._client.asking import Asking
    from outlast.streams._model import Delivered

NOT_IN_USE: Final = "consumer not in use"
"""The code by which a node that has started meanwhile asks for the settings again. Nothing of the consumer's place is lost."""


class ClientConsumer:
    """A durable place in a stream of a node: see `outlast.streams.Consumer`. Get it with `ClientStream.consumer`.

    Clients and tasks that use the same name share it: each record is handed to one of them, for `lease_s` seconds.
    """

    def __init__(self, stream: str, name: str, asking: Asking, settings: dict[str, Any]) -> None:
        self.stream = stream
        self.name = name
        self._asking = asking
        self._settings = settings

    def __repr__(self) -> str:
        """Show the names."""
        return f"<ClientConsumer {self.name!r} of stream {self.stream!r}>"

    async def fetch(self, records_max: int = 100, *, wait_s: float = 0.0, deadline_s: float | None = None) -> list[Delivered]:
        """Return records that nobody works on, at most so many, after `wait_s` seconds (at most 60) none.

        They are the caller's for the lease; what an answer had that was lost comes again when the lease is over. Raises
        `StreamClosedError` when the stream is closed and all of it is acknowledged; `LimitError` when too many are not
        acknowledged.
        """
        wanted = {"records_max": records_max, "wait_s": wait_s}
        limit_s = (self._asking.deadline_s if deadline_s is None else deadline_s) + wait_s
        answer = await self._post("fetch", wanted, Effect.NONE, limit_s, attempt_s=self._asking.attempt_s + wait_s)
        return [delivered_of(row) for row in answer.json()["records"]]

    async def acknowledge(self, *positions: int, deadline_s: float | None = None) -> None:
        """Record that these are done, durably: nobody gets them again. Twice is the same as once.

        Raises `OutcomeUnknownError` when nobody knows: then some of them may come again.
        """
        await self._post("acknowledge", {"positions": positions}, Effect.SAME, deadline_s)

    async def renew(self, *positions: int, deadline_s: float | None = None) -> tuple[int, ...]:
        """Begin the lease of these again, and return those still leased: the others may be with somebody else."""
        answer = await self._post("renew", {"positions": positions}, Effect.NONE, deadline_s)
        return tuple(answer.json()["positions"])

    async def release(self, *positions: int, deadline_s: float | None = None) -> None:
        """End the lease of these, so that the next fetch may have them."""
        await self._post("release", {"positions": positions}, Effect.NONE, deadline_s)

    async def put_back(self, *positions: int, deadline_s: float | None = None) -> None:
        """Put records that were set aside in line again, counted from 0."""
        await self._post("put_back", {"positions": positions}, Effect.SAME, deadline_s)

    async def info(self, *, deadline_s: float | None = None) -> ConsumerInfo:
        """Return its place, its lag, and what was set aside."""
        request = Request(self._asked(Effect.NONE), "GET", self._path())
        return consumer_info((await self._asking.ask(request, deadline_s)).answer.json())

    async def lag(self, *, deadline_s: float | None = None) -> int:
        """Return the number of records that are not acknowledged yet, those set aside left out."""
        return (await self.info(deadline_s=deadline_s)).lag

    async def begin(self, *, deadline_s: float | None = None) -> None:
        """Begin to use it, and make it if there is none."""
        request = Request(self._asked(Effect.SAME), "PUT", self._path(), json=self._settings)
        await self._asking.ask(request, deadline_s)

    def _path(self, *more: str) -> str:
        return beside(self.stream, "consumers", self.name, *more)

    def _asked(self, effect: Effect) -> Asked:
        return Asked(self.stream, effect, f"use of the consumer {self.name!r}")

    async def _post(
        self,
        act: str,
        body: dict[str, Any],
        effect: Effect,
        deadline_s: float | None,
        *,
        attempt_s: float | None = None,
    ) -> Answer:
        request = Request(self._asked(effect), "POST", self._path(act), json=body)
        try:
            return (await self._asking.ask(request, deadline_s, attempt_s=attempt_s)).answer
        except StreamError as error:
            if not _is_not_in_use(error):
                raise
        # Once: a node that starts again in between is told to the caller.
        await self.begin(deadline_s=deadline_s)
        return (await self._asking.ask(request, deadline_s, attempt_s=attempt_s)).answer


def _is_not_in_use(error: StreamError) -> bool:
    cause = error.__cause__
    return isinstance(cause, AnswerError) and cause.problem is not None and cause.problem.code == NOT_IN_USE
