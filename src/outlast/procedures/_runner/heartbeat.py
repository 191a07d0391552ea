"""Heartbeats: they renew the lease, and compare the records that this runner has by the store with those it works on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from outlast import progress
from outlast.procedures._model import ProcedureState, RecordWrite
from outlast.procedures._runner.running import Why

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast import Stop
    from outlast.procedures._model import Mine
    from outlast.procedures._runner.runner import Runner

SOON_S: Final = 0.05
TROUBLE_S: Final = 1.0
HEARTBEATS: Final = 3
"""Heartbeats within a lease: two may be lost before a runner is taken for dead."""


class Heartbeat:
    """The regular look of a runner at what it has. On the event loop's thread only."""

    def __init__(self, runner: Runner, name: str) -> None:
        """`name` is for people."""
        self._runner = runner
        self._name = name
        self._due = asyncio.Event()
        self._hurried = False
        runner.calls.wake = self._look_soon
        self.given_back = 0
        """Records that nobody worked on."""

    def hurry(self) -> None:
        """Do a round now."""
        self._hurried = True
        self._due.set()

    def _look_soon(self) -> None:
        self._due.set()

    async def run(self, stop: Stop) -> None:
        """Do one round every third of a lease, until the stop. Raises the faults of the store."""
        while not stop.requested:
            self._due.clear()
            await self._round()
            self._runner.failures.look(asyncio.get_running_loop().time())
            progress()
            if not self._runner.lease.is_held:
                # The reply took longer than the lease.
                await stop.sleep(SOON_S)
                continue
            await self._pause(stop)

    async def _pause(self, stop: Stop) -> None:
        """Wait for the next round: it comes sooner while the reply of a call may have been lost."""
        calls, loop = self._runner.calls, asyncio.get_running_loop()
        began_at = loop.time()
        while True:
            pause_s = self._runner.lease.lease_s / HEARTBEATS
            if calls.troubles:
                pause_s = min(pause_s, TROUBLE_S)
            left_s = began_at + pause_s - loop.time()
            if left_s <= 0:
                calls.troubles = max(0, calls.troubles - 1)
                return
            with suppress(TimeoutError):
                async with stop.timeout(left_s):
                    await self._due.wait()
                if self._hurried:
                    self._hurried = False
                    return
                self._due.clear()

    async def _round(self) -> None:
        runner = self._runner
        asked_at = runner.lease.now()
        runner.lease.look()
        known = {claimed.record.id: claimed for claimed in runner.running}
        mine = await runner.desk.store.beat(runner.id, self._name, runner.lease.lease_s)
        was_held = runner.lease.is_held
        runner.lease.renewed(asked_at)
        if not runner.lease.is_held:
            return
        if not was_held:
            runner.claimer.wake()
        for record_id, claimed in known.items():
            found = mine.get(record_id)
            if runner.running.get(record_id) is not claimed:
                # It has ended, or waits, meanwhile.
                continue
            if found is None or found.token != claimed.record.token:
                runner.running.lose(claimed)
                runner.claimer.freed()
            elif found.cancel_requested:
                claimed.interrupt(Why.CANCEL)
        await self._give_back(mine)

    async def _give_back(self, mine: Mapping[str, Mine]) -> None:
        """Return to the queue what is ours by the store alone: nobody works on it.

        The reply that gave it was lost, or this runner left it when its lease was over, and no other has taken it.
        """
        runner = self._runner
        finished = {write.id for write in runner.recorder.journal.records}
        unknown = {
            record_id: found
            for record_id, found in mine.items()
            if record_id not in finished and not runner.running.is_here(record_id)
        }
        left = [
            (record_id, found.token) for record_id, found in unknown.items() if runner.running.was_left(record_id, found.token)
        ]
        lost = left + [each for each in runner.calls.lost(unknown) if each not in left]
        if not lost:
            return
        records = await runner.desk.store.find([record_id for record_id, _ in lost])
        writes = [
            RecordWrite(record_id, token, ProcedureState.QUEUED.value, record.body_json)
            for (record_id, token), record in zip(lost, records, strict=True)
            if record is not None
            and record.token == token
            and record.owner == runner.id
            and not runner.running.is_here(record_id)
        ]
        self.given_back += len(writes)
        await asyncio.gather(*map(runner.recorder.record, writes))
        runner.claimer.wake()
