"""Wait for the ends of procedures: told by the runner in this process, and found in the store when another has them."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from outlast import Stopping, Unavailable
from outlast.procedures._model import FINAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.procedures._model import ProcedureRecord, ProcedureState
    from outlast.procedures._stores.port import ProcedureStore

FIRST_S: Final = 0.02
POLL_S: Final = 1.0
"""Between two looks at a record that somebody waits for: 20 ms growing to a second."""
GROWTH: Final = 2.0
LOOKS_PER_S: Final = 500
"""Records that are looked for in a second, at most, once they have been waited for a while: a crowd waits a little longer."""
BATCH_MAX: Final = 200
AWAY_S: Final = 0.5
"""Between two tries while the store is away."""


class End(NamedTuple):
    """The end of a record, as whoever waited for it is told."""

    state: ProcedureState
    result_json: str | None
    first_fault: dict[str, Any] | None
    last_fault: dict[str, Any] | None


class Watched:
    """A record that somebody waits for."""

    __slots__ = ("due_at", "futures", "wait_s")

    def __init__(self, due_at: float) -> None:
        self.futures: set[asyncio.Future[End | None]] = set()
        self.wait_s = FIRST_S
        self.due_at = due_at
        """The time of the next look. Other times of it in the heap are out of date."""


class Waits:
    """Those who wait for a record to end, by its id. Called on the event loop's thread only.

    Whoever waits is registered before the first look at the store, so that no end falls between the two. `is_here` says
    that a record runs in this process, whose runner tells of its end with `ended`: it is not looked for meanwhile. One task
    looks for all others, in batches. Bounded by those who wait.
    """

    def __init__(self, store: ProcedureStore, is_here: Callable[[str], bool], looked: Callable[[ProcedureRecord], None]) -> None:
        """`looked` is called with each record that was found ended by looking."""
        self._store = store
        self._is_here = is_here
        self._looked = looked
        self._watched: dict[str, Watched] = {}
        self._due: list[tuple[float, str]] = []
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return the number of records that somebody waits for."""
        return len(self._watched)

    def __contains__(self, record_id: str) -> bool:
        """Return whether somebody waits for a record."""
        return record_id in self._watched

    async def end_of(self, record_id: str, first_s: float = 0.0) -> End | None:
        """Return the end of a record once it has ended; None when there is no record any more.

        The first look is in `first_s` seconds: it was live a moment ago, and is likely to be claimed by this process.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[End | None] = loop.create_future()
        watched = self._watched.get(record_id)
        if watched is None:
            watched = self._watched[record_id] = Watched(loop.time())
            watched.wait_s = max(FIRST_S, first_s)
            self._plan(record_id, watched, first_s)
        watched.futures.add(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name="outlast procedures waits")
        try:
            return await future
        finally:
            watched.futures.discard(future)
            if not watched.futures and self._watched.get(record_id) is watched:
                del self._watched[record_id]

    def ended(self, record_id: str, end: End | None) -> None:
        """Let those who wait go on: it has ended."""
        watched = self._watched.pop(record_id, None)
        if watched is not None:
            for future in watched.futures:
                if not future.done():
                    future.set_result(end)

    def left(self, record_id: str) -> None:
        """Look for a record again soon: it is not in this process any more."""
        watched = self._watched.get(record_id)
        if watched is not None:
            watched.wait_s = FIRST_S
            self._plan(record_id, watched, FIRST_S)

    def _plan(self, record_id: str, watched: Watched, wait_s: float) -> None:
        watched.due_at = asyncio.get_running_loop().time() + wait_s
        heapq.heappush(self._due, (watched.due_at, record_id))
        self._more.set()

    async def _look(self) -> None:
        """Look for what is due, until nobody waits any more."""
        loop = asyncio.get_running_loop()
        while self._watched:
            self._more.clear()
            now = loop.time()
            ids = self._take_due(now)
            if ids:
                await self._find(ids)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._due[0][0] - now if self._due else None):
                    await self._more.wait()

    def _take_due(self, now: float) -> list[str]:
        """Return the ids to look for now, and plan the next look at each that is left."""
        ids: list[str] = []
        while self._due and self._due[0][0] <= now and len(ids) < BATCH_MAX:
            at, record_id = heapq.heappop(self._due)
            watched = self._watched.get(record_id)
            if watched is None or watched.due_at != at:
                continue
            watched.wait_s = min(max(POLL_S, len(self._watched) / LOOKS_PER_S), watched.wait_s * GROWTH)
            if not self._is_here(record_id):
                ids.append(record_id)
            self._plan(record_id, watched, watched.wait_s)
        return ids

    async def _find(self, ids: list[str]) -> None:
        try:
            found = await self._store.find(ids)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            dependency = self._store.dependency
            if (
                isinstance(exc, Unavailable | Stopping)
                or dependency.classifiers.classify(exc, source=dependency.name).is_evidence
            ):
                await asyncio.sleep(AWAY_S)
            else:
                self._fail(ids, exc)
            return
        for record_id, record in zip(ids, found, strict=True):
            if record is None:
                self.ended(record_id, None)
            elif record.state in FINAL:
                self._looked(record)
                self.ended(record_id, End(record.state, record.result_json, record.first_fault, record.last_fault))

    def _fail(self, ids: list[str], exc: Exception) -> None:
        for record_id in ids:
            watched = self._watched.pop(record_id, None)
            for future in watched.futures if watched is not None else ():
                if not future.done():
                    future.set_exception(exc)
