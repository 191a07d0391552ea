"""The moments at which a replication client has to speak, to ask, and to give the server up: decided from given times.

The server ends the session of a client from which it has heard nothing for `wal_sender_timeout`. It asks after half of
that, but its question stands behind the data in the socket, and who does not read because the sink is slow never sees
it. So the client speaks by itself, every half of the timeout. That in turn keeps the server from ever asking: to know
whether the server lives, the client has to ask as well.
"""

from __future__ import annotations

import enum


class Beat(enum.Enum):
    """An act that is due."""

    TELL = "tell"
    """Send a status update."""
    ASK = "ask"
    """Send one and ask for an answer."""
    DEAD = "dead"
    """Give the server up: it was asked, and neither answered nor sent anything for the whole timeout."""


class Heartbeat:
    """The schedule of one session. All times are seconds of one monotonic clock.

    `timeout_s` is the session's `wal_sender_timeout`. Silence counts only while we read, and only once the server was asked:
    an event loop that was blocked for long does not mistake its own absence for the server's.
    """

    __slots__ = ("_asked_at", "_heard_at", "_reading", "_told_at", "timeout_s")

    def __init__(self, timeout_s: float, now: float) -> None:
        """Begin at `now`: the client reads, and the server was just heard."""
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be more than 0, not {timeout_s}")
        self.timeout_s = timeout_s
        self._told_at = self._heard_at = now
        self._asked_at: float | None = None
        self._reading = True

    def heard(self, now: float) -> None:
        """Record that something came from the server."""
        self._heard_at = now
        self._asked_at = None

    def told(self, now: float, *, asked: bool = False) -> None:
        """Record that a status update was sent, with a question or without."""
        self._told_at = now
        if asked and self._asked_at is None:
            self._asked_at = now

    def pause(self) -> None:
        """Stop judging silence: we do not read."""
        self._reading = False
        self._asked_at = None

    def resume(self, now: float) -> None:
        """Judge silence again, from `now`."""
        self._reading = True
        self._heard_at = now
        self._asked_at = None

    def due(self, now: float) -> Beat | None:
        """Return what has to be done at `now`, if anything."""
        if self._reading and now >= self._judge_at():
            return Beat.ASK if self._asked_at is None else Beat.DEAD
        return Beat.TELL if now >= self._told_at + self.timeout_s / 2 else None

    def next_at(self) -> float:
        """Return the earliest time at which something is due, if nothing else happens before."""
        tell_at = self._told_at + self.timeout_s / 2
        return min(tell_at, self._judge_at()) if self._reading else tell_at

    def _judge_at(self) -> float:
        """Return the time from which silence means something: first a question, then the end, if there was time for an answer."""
        half_s = self.timeout_s / 2
        if self._asked_at is None:
            return self._heard_at + half_s
        return max(self._heard_at + self.timeout_s, self._asked_at + half_s)
