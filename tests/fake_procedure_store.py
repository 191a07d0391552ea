"""A store of procedures in memory and in the loop's own time, whose dependency fails as a test says.

store = FakeStore()
store.peer.script = Script(Episode(10, 20, Trouble.REFUSE))    # times of the loop; or HANG, SLOW, LOSE_REPLY (done, nobody told)
store.trouble(Trouble.LOSE_REPLY)                              # from now on, until
store.heal()
other = store.beside()                                         # that of another process: the same records, troubles of its own
store.statements["record"]                                     # the calls that reached the store, by name

It passes `tests/contract/procedure_store_contract.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from fake_procedure_records import FakeRecords
from outlast import Dependency
from outlast.procedures._model import (
    Counts,
    KeyOf,
    Mine,
    NewRecord,
    News,
    Pause,
    ProcedureRecord,
    ProcedureState,
    Recorded,
    RecordWrite,
    Submitted,
    Sweep,
    Swept,
)
from outlast.testing import Episode, Script, ScriptedPeer, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")


class FakeStore:
    """`outlast.procedures._stores.port.ProcedureStore`, for one process. Its time is the loop's, plus `held.ahead_s`."""

    records_max: int | None = None

    def __init__(self, held: FakeRecords | None = None, *, name: str = "store", latency_s: float = 0.0) -> None:
        self.held = held or FakeRecords()
        self.peer = ScriptedPeer(name, latency_s=latency_s)
        self.dependency = Dependency(name, probe=self.peer.probe)
        self.statements: Counter[str] = Counter()
        self._changed: list[asyncio.Event] = []
        self._looked_at = 0.0
        self._stores = [self]

    def beside(self, *, name: str | None = None) -> FakeStore:
        """Make the store of another process on the same records."""
        other = FakeStore(self.held, name=name or self.peer.name, latency_s=self.peer.latency_s)
        other._stores = self._stores
        self._stores.append(other)
        return other

    def trouble(self, trouble: Trouble) -> None:
        self.peer.script.heal()
        self.peer.script = Script(Episode(asyncio.get_running_loop().time(), math.inf, trouble))

    def heal(self) -> None:
        self.peer.script.heal()
        self.peer.script = Script()

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.held.ahead_s

    async def _call(self, name: str, work: Callable[[], T]) -> T:
        """Do one transaction: `work` happens at one moment, or not at all."""

        def counted() -> T:
            self.statements[name] += 1
            before = self.held.number
            try:
                return work()
            finally:
                if self.held.number != before:
                    self._tell()

        async with self.dependency.use(name):
            return await self.peer.call(counted)

    def _tell(self) -> None:
        for store in self._stores:
            for event in store._changed:
                event.set()

    async def open(self) -> None:
        await self._call("open", lambda: None)

    async def close(self) -> None:
        for event in self._changed:
            event.set()

    async def submit(self, new: Sequence[NewRecord], runner: str) -> list[Submitted]:
        return await self._call("submit", lambda: self.held.submit(self.now, new, runner))

    async def claim(
        self, runner: str, kinds: Sequence[str], count: int, *, oldest_first: bool = False, without: Sequence[str] = ()
    ) -> list[ProcedureRecord]:
        return await self._call(
            "claim", lambda: self.held.claim(self.now, runner, kinds, count, oldest_first=oldest_first, without=without)
        )

    async def record(self, writes: Sequence[RecordWrite]) -> list[Recorded]:
        return await self._call("record", lambda: self.held.record(self.now, writes))

    async def beat(self, runner: str, name: str, lease_s: float) -> Mapping[str, Mine]:
        return await self._call("beat", lambda: self.held.beat(self.now, runner, name, lease_s))

    async def leave(self, runner: str) -> None:
        await self._call("leave", lambda: self.held.leave(runner))

    async def find(self, ids: Sequence[str]) -> list[ProcedureRecord | None]:
        return await self._call("find", lambda: self.held.find(self.now, ids))

    async def find_keys(self, keys: Sequence[KeyOf]) -> list[ProcedureRecord | None]:
        return await self._call("find_keys", lambda: self.held.find_keys(self.now, keys))

    async def records(
        self,
        *,
        states: Sequence[ProcedureState] = (),
        kind: str | None = None,
        key: str | None = None,
        before: str | None = None,
        count: int = 100,
    ) -> list[ProcedureRecord]:
        return await self._call("records", lambda: self.held.list(self.now, states, kind, key, before, count))

    async def counts(self) -> Counts:
        return await self._call("counts", lambda: self.held.counts(self.now))

    async def cancel(self, id: str) -> ProcedureState | None:  # noqa: A002
        return await self._call("cancel", lambda: self.held.cancel(self.now, id))

    async def signal(self, id: str, name: str, payload_json: str) -> ProcedureState | None:  # noqa: A002
        return await self._call("signal", lambda: self.held.signal(self.now, id, name, payload_json))

    async def extend(self, deadlines: Mapping[str, float | None]) -> None:
        await self._call("extend", lambda: self.held.extend(self.now, deadlines))

    async def clear(self, kind: str = "", key: str = "") -> int:
        return await self._call("clear", lambda: self.held.clear(self.now, kind, key))

    async def fixed(self, source: str, fault_kind: str, code: str) -> int:
        return await self._call("fixed", lambda: self.held.fixed(self.now, source, fault_kind, code))

    async def pause(self, pause: Pause) -> None:
        await self._call("pause", lambda: self.held.pause(pause))

    async def resume(self, pause: Pause) -> bool:
        return await self._call("resume", lambda: self.held.resume(pause))

    async def pauses(self) -> list[Pause]:
        return await self._call("pauses", lambda: list(self.held.paused))

    async def news(self, after: int | None, wait_s: float) -> News:
        if after is None:
            self._looked_at = self.now
            return News(await self._call("news", lambda: self.held.number))
        event = asyncio.Event()
        self._changed.append(event)
        try:
            due_at = self.held.next_due_at(self._looked_at)
            if self.held.number <= after and (due_at is None or due_at > self.now):
                # The wait is the store's own: a store that is away is found out by the question after it.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s if due_at is None else min(wait_s, due_at - self.now)):
                        await event.wait()
        finally:
            self._changed.remove(event)
        return await self._call("news", lambda: self._news_since(after))

    def _news_since(self, after: int) -> News:
        held = self.held
        events = tuple(event for event in held.events if event.number > after)
        due_at, self._looked_at = held.next_due_at(self._looked_at), self.now
        work = held.work_at > after or (due_at is not None and due_at <= self.now)
        return News(held.number, events, lost=after < held.forgotten_to, work=work)

    async def sweep(self, what: Sweep) -> Swept:
        return await self._call("sweep", lambda: self.held.sweep(self.now, what))
