"""Submit records in batches: whoever comes while one call of the store is under way goes with the next."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from outlast import Stopping, Unavailable
from outlast.extend import Reaction
from outlast.procedures._model import KeyOf, NewRecord, Priority

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from outlast.procedures._model import Submitted
    from outlast.procedures._stores.port import ProcedureStore

BATCH_MAX: Final = 500


class Item:
    """One submission on its way, and those who wait for its answer: all who submit the same key meanwhile."""

    __slots__ = (
        "begin",
        "claim",
        "deadline_s",
        "delay_s",
        "id",
        "locks",
        "losses",
        "of",
        "payload_json",
        "priority",
        "sent",
        "version",
        "waiting",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - the name it has everywhere
        of: KeyOf,
        version: int,
        priority: Priority,
        payload_json: str,
        locks: tuple[str, ...],
        delay_s: float,
        deadline_s: float | None,
        *,
        begin: bool,
    ) -> None:
        """`begin`: it may begin at once, as far as its kind goes."""
        self.id = id
        self.of = of
        self.version = version
        self.priority = priority
        self.payload_json = payload_json
        self.locks = locks
        self.delay_s = delay_s
        self.deadline_s = deadline_s
        self.begin = begin
        self.claim = False
        """Whether a slot is kept for it."""
        self.losses = 0
        """How often the lease of the runner had been lost by then."""
        self.sent = False
        self.waiting: list[asyncio.Future[Submitted]] = []

    def join(self, other: Item) -> None:
        """Take in what another submission of the key asks for: the later deadline, the higher priority."""
        if self.deadline_s is not None:
            self.deadline_s = None if other.deadline_s is None else max(self.deadline_s, other.deadline_s)
        self.priority = max(self.priority, other.priority)

    def new(self) -> NewRecord:
        """Return it as the store takes it."""
        return NewRecord(
            self.id,
            self.of.kind,
            self.of.key,
            self.version,
            self.priority,
            self.payload_json,
            self.locks,
            self.delay_s,
            self.deadline_s,
            self.claim,
        )


class Submitter:
    """One call of the store for all who submit at a time. Called on the event loop's thread only.

    Of one key at most one submission is on its way: the others join it here. Waiting is bounded by those who wait.
    """

    def __init__(
        self,
        store: ProcedureStore,
        runner: str,
        *,
        reserve: Callable[[Item], bool],
        answered: Callable[[Item, Submitted | None], None],
        guard: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`guard` is held while a call is under way. `reserve` says whether a submission may begin at once. `answered` is called
        with each answer of the store, before those who wait go on, and with None for a submission that has none.
        """
        self._store = store
        self._runner = runner
        self._reserve = reserve
        self._answered = answered
        self._guard = guard
        self._pending: deque[Item] = deque()
        self._items: dict[KeyOf, Item] = {}
        self._flusher: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> tuple[Submitted, bool]:
        """Return the answer of the store, and whether another submission of the key brought it.

        Raises what the store raises. If this is cancelled, the submission is made all the same.
        """
        future: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
        before = self._items.get(item.of)
        if before is not None:
            if not before.sent:
                before.join(item)
            before.waiting.append(future)
            return await future, True
        item.waiting.append(future)
        self._items[item.of] = item
        self._pending.append(item)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name="outlast procedures submitter")
        return await future, False

    async def _flush(self) -> None:
        # Those who are ready in this turn of the loop go together.
        await asyncio.sleep(0)
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(BATCH_MAX, len(self._pending)))]
            for item in batch:
                item.sent = True
                item.claim = self._reserve(item)
            await self._send(batch)

    async def _send(self, batch: list[Item]) -> None:
        with self._guard():
            await self._call(batch)

    async def _call(self, batch: list[Item]) -> None:
        try:
            answers = await self._store.submit([item.new() for item in batch], self._runner)
        except Exception as exc:  # noqa: BLE001 - it goes to those who wait
            if len(batch) > 1 and self._concerns_one(exc):
                half = len(batch) // 2
                await self._send(batch[:half])
                await self._send(batch[half:])
            else:
                self._fail(batch, exc)
            return
        except BaseException as exc:
            self._fail(batch, Stopping(f"the submitter was ended: {exc!r}"))
            raise
        for item, submitted in zip(batch, answers, strict=True):
            del self._items[item.of]
            self._answered(item, submitted)
            for future in item.waiting:
                if not future.done():
                    future.set_result(submitted)

    def _concerns_one(self, exc: Exception) -> bool:
        """Return whether the store may have refused one of them alone."""
        if isinstance(exc, Unavailable | Stopping):
            return False
        dependency = self._store.dependency
        fault = dependency.classifiers.classify(exc, source=dependency.name)
        return not fault.is_evidence and fault.reaction in {Reaction.ANSWER, Reaction.RESTART}

    def _fail(self, batch: list[Item], exc: Exception) -> None:
        for item in batch:
            del self._items[item.of]
            self._answered(item, None)
            for future in item.waiting:
                if not future.done():
                    future.set_exception(exc)
