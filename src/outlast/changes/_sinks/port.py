"""The port that every sink fulfils, and what a stream may rely on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from outlast.changes._decoding.transactions import Transaction, TransactionPart

if TYPE_CHECKING:
    from outlast import Dependency
    from outlast.changes._snapshot.model import SnapshotTarget

Delivery: TypeAlias = Transaction | TransactionPart
"""A whole transaction, or the next part of a large one."""


class Sink(Protocol):
    """Takes transactions in commit order. The slot's position moves only to what `flush` has called durable.

    Delivery is at least once: after a crash everything behind the position that `open` returns comes again. A sink that stores
    the position in the same transaction as the data makes it exactly once, since `open` then returns the very position.

    What raises a fault of kind `REJECTED` or `BUG` out of `write` refuses this transaction: it is tried again a few times from
    the last position on, and then quarantined. Any other fault is the sink's trouble: the stream waits and begins again.

    Each call may be cancelled: at once when the lock of the stream is lost, 2 s after a stop. `close` follows.
    """

    async def open(self, stream: str, epoch: int) -> int:
        """Get ready to take `stream` as its owner number `epoch`; return the position that is durable, 0 if there is none.

        What was half written before is taken back here. Raises `FencedError` if a later owner has been here.
        """
        ...

    async def write(self, delivery: Delivery) -> None:
        """Take one transaction, or the next part of one. It need not be durable when this returns.

        One without changes only moves the position: it was quarantined.
        """
        ...

    async def flush(self) -> int:
        """Make everything that is complete durable; return the `end_lsn` of the last complete transaction that is."""
        ...

    async def close(self) -> None:
        """Let go. What was not flushed comes again. Called once for each `open`, also after a fault."""
        ...


@runtime_checkable
class Needy(Protocol):
    """A sink that needs something besides the source: while that is down, the stream waits for it as for the source."""

    @property
    def needs(self) -> tuple[Dependency, ...]:
        """The dependencies that it cannot work without."""
        ...


@runtime_checkable
class Copying(Protocol):
    """A sink that can be given all rows first, as they are where the slot begins."""

    def snapshot_target(self) -> SnapshotTarget:
        """Return what takes them, for the stream that is open."""
        ...


def needs_of(sink: Sink) -> tuple[Dependency, ...]:
    """Return the dependencies that a sink needs; none if it does not say."""
    return sink.needs if isinstance(sink, Needy) else ()


def emptied(delivery: Delivery) -> Delivery:
    """Return the same transaction without its changes, so that a sink moves past it."""
    return replace(delivery, changes=())
