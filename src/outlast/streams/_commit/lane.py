"""The words of group commit: what waits in a stream's queue, and what the thread takes of it at a time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from outlast.streams._errors import StreamError
    from outlast.streams._model import Appended, Entry

T = TypeVar("T")


class Writes(Protocol):
    """The part of a log that a round needs. Called in the thread."""

    def append(self, entries: Sequence[Entry], now_us: int) -> Sequence[Appended | StreamError]:
        """Store entries in one frame; return for each its positions, or why it alone was not stored. `OSError`: none is."""
        ...

    def sync(self) -> None:
        """Make durable what was appended."""
        ...


class Calls(Protocol):
    """The part of a thread that is needed, as `outlast.extend.OwnThread` has it."""

    def call(self, function: Callable[[], T], done: Callable[[T | None, Exception | None], object]) -> None:
        """Make a call in the thread, and then call `done(result, error)` on the event loop."""
        ...


class Item:
    """One append between its caller and the thread."""

    __slots__ = ("entry", "future", "size", "taken")

    def __init__(self, entry: Entry | None, size: int, future: asyncio.Future[Any]) -> None:
        self.entry = entry
        """None: it was given up while it was queued."""
        self.size = size
        self.future = future
        """Its result is `Appended`, or the exception for its caller to raise."""
        self.taken = False
        """Whether it is, or was, in the thread."""


class Control:
    """A call about one stream that has its turn among the appends: a trim, a close."""

    __slots__ = ("function", "future")

    def __init__(self, function: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.future = future


class Lane:
    """The queue of one stream."""

    __slots__ = ("items", "log", "name", "on_stored", "queued", "size_bytes", "sync_every_s", "syncing", "waiting")

    def __init__(self, name: str, *, sync_every_s: float = 0.0, on_stored: Callable[[], None] | None = None) -> None:
        self.name = name
        self.log: Writes | None = None
        self.sync_every_s = sync_every_s
        self.on_stored = on_stored
        """Called after every round in which something was stored."""
        self.items: deque[Item | Control] = deque()
        self.queued = False
        """Whether it stands in line for a round."""
        self.waiting = 0
        """Appends in `items` and in the thread."""
        self.size_bytes = 0
        """Their bytes."""
        self.syncing: asyncio.TimerHandle | None = None
        """The time of its next sync, where something is not synced."""


Work: TypeAlias = "list[Item] | Control"


class Round:
    """One call to the thread: the work that it took when the call began, and the outcomes as far as it has come."""

    __slots__ = ("began_at", "epoch", "outcomes", "passed_over", "works")

    def __init__(self) -> None:
        self.epoch = 0
        """That of the disk when the work was taken."""
        self.began_at = 0.0
        """When there was no other call before it any more, on the clock of the event loop."""
        self.works: list[tuple[Lane, Work]] | None = None
        """None: the call has not begun."""
        self.passed_over: list[tuple[Lane, Item | Control]] = []
        """What was given up, and had its turn in this round."""
        self.outcomes: list[Any] = []
        """Of each work an exception, or what it returned."""

    @property
    def has_failed(self) -> bool:
        """Whether something in it raised."""
        return any(isinstance(outcome, Exception) for outcome in self.outcomes)


class Counts:
    """The work of a committer since the start."""

    __slots__ = (
        "appends",
        "bytes",
        "duplicates",
        "expired",
        "failed",
        "frames",
        "records",
        "refused",
        "rounds",
        "syncs",
        "unknown",
    )

    def __init__(self) -> None:
        self.appends = self.records = self.bytes = self.duplicates = 0
        self.refused = self.expired = self.failed = self.unknown = 0
        self.rounds = self.frames = self.syncs = 0

    def outcomes(self) -> dict[str, float]:
        """Return how many appends had which outcome. Refused ones were never begun; of the unknown nobody knows."""
        return {
            "stored": self.appends,
            "duplicate": self.duplicates,
            "refused": self.refused,
            "expired": self.expired,
            "failed": self.failed,
            "unknown": self.unknown,
        }
