"""The number of live records, as far as a process knows it without asking the store for each submission."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from outlast import Fault, Kind, Scope, Stopping, Unavailable
from outlast.procedures._model import LIVE, Counts

if TYPE_CHECKING:
    from outlast.procedures._stores.port import ProcedureStore

EVERY_S: Final = 10.0
SHARE: Final = 0.02
"""Of the store's time that counting may take: half a second, and then 25 s without."""
RETRY_S: Final = 2.0
logger = logging.getLogger("outlast.procedures")


class LiveCount:
    """At most so many live records: beyond them a submission that would make one is refused, from memory.

    They are counted every few seconds; between two counts those that this process makes and ends are added up. So many processes
    together may go beyond the bound by what they make within one period.
    """

    def __init__(self, store: ProcedureStore, live_max: int) -> None:
        self.live_max = live_max
        self.made = 0
        """Records made by this process since the last count, less those that ended here."""
        self.counted = Counts({})
        self.counted_at: float | None = None
        """On the event loop's clock."""
        self._store = store
        self._live = 0
        self._next_at = 0.0
        self._full_since: float | None = None

    @property
    def live(self) -> int:
        """The number of live records, as far as it is known."""
        return max(0, self._live + self.made)

    def refusal(self, now: float) -> tuple[Fault, float, float] | None:
        """Return the fault, since when and when to come back, if there is no room; None if there is."""
        if self.live < self.live_max:
            self._full_since = None
            return None
        if self._full_since is None:
            self._full_since = now
        reason = f"the backlog is full: {self.live} procedures are queued, running or waiting (limit {self.live_max})"
        hint = "let more runners work, or cancel what is not needed; `backlog_max` is the limit"
        fault = Fault(Kind.EXHAUSTED, "backlog full", reason, "procedures", Scope.CALL, RETRY_S, hint)
        return fault, now - self._full_since, RETRY_S

    async def refresh(self) -> None:
        """Count again, if it is time. Raises the faults of the store that concern everyone."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        if began_at < self._next_at:
            return
        self._next_at = began_at + EVERY_S
        made = self.made
        try:
            self.counted = await self._store.counts()
        except (Unavailable, Stopping):
            raise
        except Exception as exc:
            fault = self._store.dependency.classifiers.classify(exc, source=self._store.dependency.name)
            if fault.is_evidence:
                raise
            # Too many records to be counted in time: what was counted before, and what was made since, goes on.
            logger.debug("procedures: not counted: %s", fault.code)
            return
        self.counted_at = loop.time()
        self._next_at = max(self._next_at, self.counted_at + (self.counted_at - began_at) / SHARE)
        states = {state.value for state in LIVE}
        self._live = sum(count for (_, state), count in self.counted.held.items() if state in states)
        self.made -= made
