"""The records that this runner has, and how the work on one of them is interrupted."""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from outlast.extend import plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from outlast.procedures._model import ProcedureRecord, RecordWrite


SAID_CHARS_MAX: Final = 500
LEFT_MAX: Final = 10_000


class Doing(enum.Enum):
    """The work on a claimed record at this moment. The driver of the record sets it; it dies with the process."""

    BETWEEN = "between"
    """It decides, or records. It is not interrupted: what it records is safe soon, in the store or in the journal."""
    STEP = "step"
    UNDO = "undo"
    WAITING = "waiting"
    """For the journal to be recorded."""


class Why(enum.Enum):
    """The reason of an interruption."""

    CANCEL = "cancel"
    """Somebody asked for the end of the procedure."""
    STOP = "stop"
    """The service ends, and its time to drain is over."""
    LOST = "lost"
    """The claim is not this runner's any more, or may be another's by now."""


class Claimed:
    """A record that this runner has claimed, with the one task that works on it."""

    __slots__ = (
        "cancel_requested",
        "claimed_at",
        "doing",
        "in_journal",
        "interrupted",
        "lost",
        "progress",
        "record",
        "said",
        "saying",
        "stopped",
        "task",
    )

    def __init__(self, record: ProcedureRecord, claimed_at: float) -> None:
        self.record = record
        self.claimed_at = claimed_at
        """On the event loop's clock."""
        self.doing = Doing.BETWEEN
        self.cancel_requested = record.cancel_requested
        self.stopped = False
        self.lost = False
        self.interrupted = False
        """Whether the task was cancelled by us in what it does now: once is enough."""
        self.in_journal = False
        """Whether what was recorded last is in the journal only."""
        self.said: str | None = None
        """The newest progress of the step, not recorded yet."""
        self.progress: Callable[[str], RecordWrite] | None = None
        """Makes the write of a progress, while a step is under way."""
        self.saying: asyncio.Future[bool] | None = None
        """The write of a progress on its way: no other write of the record is made beside it."""
        self.task: asyncio.Task[None] | None = None

    def store_now(self, now: float) -> float:
        """Return the store's time."""
        return self.record.read_at + (now - self.claimed_at)

    def say(self, text: str) -> None:
        """Note the progress of the step."""
        self.said = plain_text(text, SAID_CHARS_MAX)

    def said_so(self, saying: asyncio.Future[bool]) -> None:
        """Note that the write of a progress has ended."""
        self.saying = None
        if not saying.cancelled():
            # A failure is the recorder's, which has said so.
            saying.exception()

    def begin(self, doing: Doing) -> bool:
        """Begin something that may be interrupted; return False if that has happened already."""
        if self._is_over(doing):
            return False
        self.interrupted = False
        self.doing = doing
        return True

    def end(self) -> None:
        """End it. A request of ours that came too late for it is taken back."""
        self.doing = Doing.BETWEEN
        while self.interrupted and self.task is not None and self.task.cancelling():
            self.task.uncancel()

    def interrupt(self, why: Why) -> None:
        """Interrupt what it does, once, if that may be: an undo is not interrupted by a cancel."""
        match why:
            case Why.CANCEL:
                self.cancel_requested = True
            case Why.STOP:
                self.stopped = True
            case Why.LOST:
                self.lost = True
        self._cancel(why)

    def _cancel(self, why: Why) -> None:
        if self.interrupted or self.task is None or not self._is_over(self.doing):
            return
        if self.task is asyncio.current_task():
            # The step itself has asked for it: a task that cancels itself may be gone from the step when that comes about.
            asyncio.get_running_loop().call_soon(self._cancel, why)
            return
        self.interrupted = True
        self.task.cancel(why.value)

    def _is_over(self, doing: Doing) -> bool:
        match doing:
            case Doing.BETWEEN:
                return False
            case Doing.STEP:
                return self.lost or self.stopped or self.cancel_requested
            case Doing.UNDO | Doing.WAITING:
                return self.lost or self.stopped


class Running:
    """The records that this runner has, by id. Bounded by its slots. Called on the event loop's thread only."""

    def __init__(self) -> None:
        self._claimed: dict[str, Claimed] = {}
        self._old: dict[str, Claimed] = {}
        """Those that were lost while their step does not end: the same record is not begun here beside it."""
        self.lost = 0
        """The records that were lost, since the start."""
        self._left: OrderedDict[tuple[str, int], None] = OrderedDict()
        """Id and token of those that were lost and may be ours after all: nobody took them over while the store was away."""

    def __len__(self) -> int:
        return len(self._claimed)

    def __iter__(self) -> Iterator[Claimed]:
        return iter(tuple(self._claimed.values()))

    def get(self, record_id: str) -> Claimed | None:
        """Return the claim of a record; None if it is not here."""
        return self._claimed.get(record_id)

    def is_here(self, record_id: str) -> bool:
        """Return whether something works on a record: a claim that was lost too, while its step has not ended."""
        return record_id in self._claimed or record_id in self._old

    def begin(self, claimed: Claimed, work: Coroutine[None, None, None]) -> None:
        """Start the work on a record. If an earlier claim of it has not ended here, the work begins after that."""
        record = claimed.record
        before = self._claimed.get(record.id)
        if before is not None:
            self._old[record.id] = before
            before.interrupt(Why.LOST)
        self._claimed[record.id] = claimed
        old = self._old.get(record.id)
        claimed.task = asyncio.create_task(work if old is None else _after(old, work), name=f"procedure {record.kind}")

    def end(self, claimed: Claimed) -> None:
        """Let go of a record: its work has ended, or is to be left."""
        if self._claimed.get(claimed.record.id) is claimed:
            del self._claimed[claimed.record.id]
        if self._old.get(claimed.record.id) is claimed:
            del self._old[claimed.record.id]

    def lose(self, claimed: Claimed) -> None:
        """Interrupt the work on a record that is not ours any more; its slot is free at once."""
        self.lost += 1
        self.leave(claimed.record)
        self._claimed.pop(claimed.record.id, None)
        self._old[claimed.record.id] = claimed
        claimed.interrupt(Why.LOST)

    def leave(self, record: ProcedureRecord) -> None:
        """Note a claim that nobody works on here, and that may be ours all the same."""
        self._left[record.id, record.token] = None
        if len(self._left) > LEFT_MAX:
            # The two looks at what nobody works on find the others, later.
            self._left.popitem(last=False)

    def was_left(self, record_id: str, token: int) -> bool:
        """Return whether this claim was lost here: it is given back if it is ours by the store. Ask once its work has ended."""
        return self._left.pop((record_id, token), False) is None

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the tasks that have not ended, also those of lost records."""
        both = (*self._claimed.values(), *self._old.values())
        return [claimed.task for claimed in both if claimed.task is not None and not claimed.task.done()]


async def _after(old: Claimed, work: Coroutine[None, None, None]) -> None:
    if old.task is not None and not old.task.done():
        await asyncio.wait({old.task})
    await work
