"""The position that may be confirmed to the server: decided from what was received, what is durable, and keepalives.

What is confirmed never comes again. So the confirmed position follows what the sink says is durable, and moves past it in one
case only: when everything that was received is durable, and a keepalive says that the server has read further and found
nothing for us. Without that a quiet stream on a busy server would make it keep its log forever, and its shutdown wait.

When to send a status update is decided beside the session, by the heartbeat of `outlast.postgres.replication`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from outlast.postgres.replication import format_lsn


class PositionError(ValueError):
    """A position that cannot be: the sink called durable what it was never sent. Confirmed, changes would be lost."""


@dataclass(frozen=True, slots=True)
class Positions:
    """The positions of one session of a stream. Every position is a byte offset in the server's log, as `wal_end` of a message.

    `confirmable` only grows. It is never beyond the end of a transaction that was received and is not durable.
    """

    received: int
    """The end of the last transaction that was received whole."""
    confirmable: int
    """Everything for us that ends up to here is durable, so this may be confirmed."""
    idle: int = 0
    """The position that the server had read to, by the last keepalive: up to here everything for us was sent."""

    @classmethod
    def begin(cls, durable: int = 0) -> Positions:
        """Return the start of a session: at the position that the sink holds, or at what the slot was confirmed to."""
        return cls(durable, durable)

    @property
    def pending(self) -> bool:
        """Whether a transaction was received that is not durable."""
        return self.confirmable < self.received

    def is_repeated(self, end: int) -> bool:
        """Return whether a transaction that ends here is durable already: after a restart the server may send it again."""
        return end <= self.confirmable

    def transaction(self, end: int) -> Positions:
        """Record a transaction that was received whole, its commit included; `end` is the end of the commit record.

        One that is still open need not be known: the server sends what is not committed at the confirmed position again, whole.
        """
        # Once a transaction, and `replace` is slow.
        return Positions(end, self.confirmable, self.idle) if end > self.received and not self.is_repeated(end) else self

    def keepalive(self, server: int) -> Positions:
        """Record a keepalive: the server has read up to `server`, and sent before it whatever ends there."""
        if server <= self.idle:
            return self
        return replace(self, idle=server, confirmable=self.confirmable if self.pending else max(self.confirmable, server))

    def stored(self, durable: int) -> Positions:
        """Record that the sink has everything up to `durable`. Raises `PositionError` when it was never sent that much.

        A lower position than before changes nothing.
        """
        if durable > max(self.received, self.confirmable):
            given = format_lsn(max(self.received, self.confirmable))
            raise PositionError(
                f"the sink says that {format_lsn(durable)} is durable, but it was given changes up to {given} only"
            )
        if durable <= self.confirmable:
            return self
        # With nothing left to be stored the last keepalive counts as well.
        return replace(self, confirmable=max(durable, self.idle) if durable >= self.received else durable)

    def lag_bytes(self, server: int) -> int:
        """Return the bytes of the server's log that are not known to be durable here; `server` is the end of its log."""
        return max(0, server - self.confirmable)
