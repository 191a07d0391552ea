"""What the suite of the stores of procedures is run with: a rig for each store, and short words for what is submitted."""

from __future__ import annotations

import abc
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from outlast.procedures import Priority, ProcedureRecord, ProcedureState
from outlast.procedures._model import NewRecord, Recorded, RecordWrite, Submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from outlast.procedures._stores.port import ProcedureStore

KIND = "build"
LEASE_S = 60.0
FAULT = {"kind": "transient", "code": "refused", "reason": "nobody listens", "source": "db", "hint": ""}
OTHER_FAULT = {**FAULT, "kind": "bug", "code": "KeyError", "source": ""}

QUEUED, RUNNING, WAITING = ProcedureState.QUEUED, ProcedureState.RUNNING, ProcedureState.WAITING
DONE, DEAD, CANCELLED, EXPIRED = ProcedureState.DONE, ProcedureState.DEAD, ProcedureState.CANCELLED, ProcedureState.EXPIRED

_numbers = itertools.count(1)


class StoreRig(abc.ABC):
    """Records of a test's own, and how their time is moved."""

    @abc.abstractmethod
    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test, within a limit."""

    @abc.abstractmethod
    def store(self) -> ProcedureStore:
        """Make a store as another process would: on the same records, with a dependency of its own. Nothing is opened."""

    @abc.abstractmethod
    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass by the stores' clock, for leases too."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[ProcedureStore]:
        """Open a store for a block, and the runners "a" and "b" have leases."""
        store = self.store()
        await store.dependency.open()
        try:
            await store.open()
            await store.beat("a", "runner a", LEASE_S)
            await store.beat("b", "runner b", LEASE_S)
            yield store
        finally:
            await store.close()
            await store.dependency.close()


def new(key: str = "key", kind: str = KIND, **settings: Any) -> NewRecord:
    """Make a submission; its id is above those of all before it."""
    settings = {"version": 1, "priority": Priority.NORMAL, "payload_json": '{"n": 1}', **settings}
    return NewRecord(f"{next(_numbers):032x}", kind, key, **settings)


def written(record: ProcedureRecord, state: ProcedureState = RUNNING, **settings: Any) -> RecordWrite:
    """Make a write by whoever has claimed `record`."""
    return RecordWrite(record.id, record.token, state.value, settings.pop("body_json", '{"steps": 1}'), **settings)


async def submit(store: ProcedureStore, key: str = "key", kind: str = KIND, **settings: Any) -> ProcedureRecord:
    [submitted] = await store.submit([new(key, kind, **settings)], "a")
    assert submitted.answer in {Submission.CREATED, Submission.REVIVED}, submitted
    return submitted.record


async def begin(store: ProcedureStore, key: str = "key", runner: str = "a", kind: str = KIND, **settings: Any) -> ProcedureRecord:
    """Submit and claim at once."""
    [submitted] = await store.submit([new(key, kind, claim=True, **settings)], runner)
    assert submitted.record.state is RUNNING, submitted
    return submitted.record


async def write(store: ProcedureStore, record: ProcedureRecord, state: ProcedureState = RUNNING, **settings: Any) -> None:
    assert await store.record([written(record, state, **settings)]) == [Recorded.WRITTEN]


async def fail(
    store: ProcedureStore, key: str = "key", kind: str = KIND, *, until_s: float = 100.0, **settings: Any
) -> ProcedureRecord:
    """Let a key be dead."""
    record = await begin(store, key, kind=kind)
    await write(store, record, DEAD, **{"fault": FAULT, "failures": 1, "until_s": until_s, **settings})
    return await look(store, record)


async def look(store: ProcedureStore, record: ProcedureRecord) -> ProcedureRecord:
    [found] = await store.find([record.id])
    assert found is not None
    return found


async def claim(store: ProcedureStore, runner: str = "a", count: int = 100, **settings: Any) -> list[ProcedureRecord]:
    return await store.claim(runner, [KIND], count, **settings)


def keys(records: list[ProcedureRecord]) -> list[str]:
    return [record.key for record in records]
