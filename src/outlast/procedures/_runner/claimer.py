"""Claim records for all free slots at once: by priority, one in eight the oldest, and only what may begin now."""

from __future__ import annotations

import asyncio
import heapq
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from outlast import progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast import Stop
    from outlast.extend import Needs, Recorder
    from outlast.procedures._decisions.causes import Share
    from outlast.procedures._decisions.front import Front
    from outlast.procedures._model import ProcedureRecord, RecordWrite
    from outlast.procedures._runner.calls import Calls
    from outlast.procedures._runner.lease import Lease
    from outlast.procedures._runner.running import Running
    from outlast.procedures._stores.port import ProcedureStore

BATCH_MAX: Final = 200
OLDEST: Final = 8
"""One claim in so many goes by age alone."""
JITTER: Final = 0.2
"""The slow poll comes at 80 to 120 % of `poll_s`, so that many processes do not poll in step."""
TIMES_MAX: Final = 10_000
"""Times at which something of ours is due. Those beyond are found by the poll."""


class Claimer:
    """One call of the store for all slots that are free. Called on the event loop's thread only.

    Call `wake` when there may be work, `due_in` when there will be. Without either it looks every `poll_s` seconds, which also
    finds what became due by its time in another process, or by the death of a runner.
    """

    def __init__(
        self,
        store: ProcedureStore,
        runner: str,
        *,
        slots: int,
        running: Running,
        recorder: Recorder[RecordWrite],
        needs: Needs,
        front: Front,
        calls: Calls,
        lease: Lease,
        begin: Callable[[ProcedureRecord, int], None],
        poll_s: float,
    ) -> None:
        """`begin` is called with each record that was claimed, and how often the lease had been lost before."""
        self._store = store
        self._runner = runner
        self._slots = slots
        self._running = running
        self._recorder = recorder
        self._needs = needs
        self._front = front
        self._calls = calls
        self._lease = lease
        self._begin = begin
        self._poll_s = poll_s
        self._rng = random.Random()
        self._maybe = False
        """Whether there may be work that the last look has not seen."""
        self._sooner = asyncio.Event()
        """Set when the wait is to be looked at again."""
        self._is_full = False
        self._times: list[float] = []
        self._oldest = 0.0
        """Claims that are to go by age; one call of the store goes by it when it is worth the whole call."""
        self._idle = False
        """Whether the last look found nothing to claim, and nothing has come since."""
        self._stop: Stop | None = None
        self.reserved = 0
        """Slots for submissions on their way that are to begin at once."""

    def wake(self) -> None:
        """Look for work now."""
        self._idle = False
        self._maybe = True
        if not self._is_full:
            self._sooner.set()

    def due_in(self, seconds: float) -> None:
        """Look for work in so many seconds."""
        if len(self._times) < TIMES_MAX:
            at = asyncio.get_running_loop().time() + seconds
            heapq.heappush(self._times, at)
            if self._times[0] == at:
                self._sooner.set()

    def freed(self) -> None:
        """Note that a slot is free."""
        if self._is_full:
            self._sooner.set()

    @property
    def room(self) -> int:
        """The number of records that may be claimed: free slots, and room in the journal for what becomes of them."""
        journal = self._recorder.journal
        busy = len(self._running) + self.reserved
        return min(self._slots - busy, journal.records_max - len(journal.records) - busy)

    def reserve(self, kind: str) -> bool:
        """Take a slot for a submission that may begin at once: nothing else waits for one, and nothing holds its kind."""
        stop = self._stop
        if stop is None or stop.requested or not self._idle or self.room <= 0 or not self._lease.is_held:
            return False
        if not any(most is None and kind in kinds for kinds, most in self._needs.shares(stop)):
            return False
        self.reserved += 1
        return True

    async def run(self, stop: Stop) -> None:
        """Claim records until the stop. Raises the faults of the store."""
        self._stop = stop
        self.wake()
        try:
            while not stop.requested:
                await self._once(stop)
        finally:
            self._idle = False

    async def _once(self, stop: Stop) -> None:
        if self._recorder.is_behind:
            # First what is finished, then what is new.
            await self._recorder.replay(stop)
        self._sooner.clear()
        room = min(BATCH_MAX, self.room)
        self._is_full = room <= 0
        if self._is_full or not self._lease.is_held:
            await self._until_sooner(stop, self._poll_s)
            return
        self._maybe = False
        found, asked = await self._turn(room, stop)
        if found:
            progress()
        if found < asked or not asked:
            await self._until_due(stop, saw_all=bool(asked))

    async def _until_due(self, stop: Stop, *, saw_all: bool) -> None:
        """Wait until there may be work: until somebody says so, or until the next time at which something is due."""
        until = asyncio.get_running_loop().time() + self._poll_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._idle = saw_all and not self._maybe
        while not self._maybe:
            now = asyncio.get_running_loop().time()
            due = min([until, *self._dues(now)])
            if due <= now:
                break
            if not await self._until_sooner(stop, due - now):
                break
            self._sooner.clear()
        self._idle = False

    async def _turn(self, room: int, stop: Stop) -> tuple[int, int]:
        """Claim once for each share; return how many records were found, and how many were asked for."""
        loop = asyncio.get_running_loop()
        found = wanted = 0
        for kinds, most in self._needs.shares(stop):
            left = room - found if most is None else min(room - found, most)
            for share in self._front.shares(loop.time(), kinds):
                asked = left if share.count_max is None else min(left, share.count_max)
                took = await self._claim(share, asked) if asked > 0 else self._none(share)
                left -= took
                found += took
                wanted += max(0, asked)
        return found, wanted

    def _none(self, share: Share) -> int:
        self._front.claimed(asyncio.get_running_loop().time(), share, (), 0)
        return 0

    async def _claim(self, share: Share, asked: int) -> int:
        loop = asyncio.get_running_loop()
        by_age = self._oldest >= asked
        losses = self._lease.losses
        with self._calls.one():
            try:
                records = await self._store.claim(self._runner, share.kinds, asked, oldest_first=by_age, without=share.without)
            except BaseException:
                self._none(share)
                raise
            self._front.claimed(loop.time(), share, [(record.id, record.of) for record in records], asked)
            for record in records:
                self._begin(record, losses)
        if by_age:
            self._oldest -= len(records)
        self._oldest = min(self._oldest + len(records) / OLDEST, float(BATCH_MAX))
        return len(records)

    def _dues(self, now: float) -> list[float]:
        """Return the times at which more may be claimed, on the event loop's clock."""
        due = [self._times[0]] if self._times else []
        while self._times and self._times[0] <= now:
            heapq.heappop(self._times)
        others = (self._recorder.due_in_s(), self._needs.next_in_s(), self._front.next_in_s(now))
        return due + [now + max(0.001, wait_s) for wait_s in others if wait_s is not None]

    async def _until_sooner(self, stop: Stop, timeout_s: float) -> bool:
        """Return whether somebody set the event before the time was over."""
        with suppress(TimeoutError):
            async with stop.timeout(timeout_s):
                return await self._sooner.wait()
        return False
