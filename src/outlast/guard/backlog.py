"""What waits to be written to a place that may be slow or full: bounded, in order, never a torn line, drops counted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from outlast.guard.words import amount


@dataclass(frozen=True, slots=True)
class Gap:
    """Output that was dropped at one place of a stream, because there was no room for it."""

    lines: int
    size: int
    """Bytes."""
    lasted_s: float

    def tell(self) -> str:
        """Say how much it is."""
        return f"{amount(self.lines, 'line')} ({amount(self.size, 'byte')}) dropped within {self.lasted_s:.1f} s"


@dataclass(slots=True)
class Backlog:
    """At most `bytes_max` bytes (and a few lines about gaps), taken from the front, added at the back.

    What does not fit is dropped and counted, newest first: the first line of a kind tells more than the thousandth.
    Dropping starts when it is full and ends when it is half empty, so that one slow spell is one gap. A gap starts
    and ends between lines: the rest of a line that was dropped is dropped too, and a line whose beginning is out of
    reach is ended with a newline. At every moment `taken + added = written + size + dropped_bytes`.
    """

    bytes_max: int
    size: int = 0
    """Bytes that wait."""
    taken: int = 0
    """Bytes offered in all."""
    added: int = 0
    """Bytes that nobody offered: newlines that end a cut line, and lines about gaps."""
    dropped_lines: int = 0
    dropped_bytes: int = 0
    gaps: int = 0
    """Gaps that were begun."""
    _chunks: deque[bytes] = field(default_factory=deque[bytes])
    _head: int = 0
    """Bytes of the first chunk that have been let go of."""
    _dropping_since: float | None = None
    _gap_lines: int = 0
    _gap_bytes: int = 0
    _kept_inside: bool = False
    """Whether the last byte that was kept is inside a line."""
    _dropped_inside: bool = False
    """Whether the last byte that was dropped is inside a line."""

    @property
    def is_dropping(self) -> bool:
        """Whether there is a gap at the end."""
        return self._dropping_since is not None

    def put(self, data: bytes, now: float) -> Gap | None:
        """Take `data` in, or as many whole lines of it as there is room for; gives the gap that ended by it."""
        self.taken += len(data)
        gap = None
        if self._dropping_since is not None:
            cut = data.find(b"\n") + 1 if self._dropped_inside else 0
            if self.size > self.bytes_max // 2 or (self._dropped_inside and not cut):
                self._drop(data)
                return None
            self._drop(data[:cut])
            data = data[cut:]
            gap = self._close(now)
        room = max(0, self.bytes_max - self.size)
        if len(data) <= room:
            self._keep(data)
            return gap
        cut = data.rfind(b"\n", 0, room) + 1
        self._keep(data[:cut])
        self._dropping_since = now
        self.gaps += 1
        self._drop(data[cut:])
        return gap

    def _keep(self, data: bytes) -> None:
        if data:
            self._chunks.append(data)
            self.size += len(data)
            self._kept_inside = not data.endswith(b"\n")

    def _drop(self, data: bytes) -> None:
        if data:
            lines = data.count(b"\n")
            self._gap_lines += lines
            self._gap_bytes += len(data)
            self.dropped_lines += lines
            self.dropped_bytes += len(data)
            self._dropped_inside = not data.endswith(b"\n")

    def peek(self, bytes_max: int) -> bytes:
        """Give the front, at most `bytes_max` bytes of it, whole lines where it can; empty when nothing waits."""
        pieces: list[bytes] = []
        size, start = 0, self._head
        for chunk in self._chunks:
            pieces.append(chunk[start : start + bytes_max - size])
            size += len(pieces[-1])
            if size >= bytes_max:
                break
            start = 0
        data = b"".join(pieces)
        if size < self.size:
            data = data[: data.rfind(b"\n") + 1] or data
        return data

    def done(self, size: int, now: float) -> Gap | None:
        """Let go of `size` bytes at the front, which were written; gives the gap that ended by it."""
        self.size -= size
        self._head += size
        while self._chunks and self._head >= len(self._chunks[0]):
            self._head -= len(self._chunks.popleft())
        if self._dropping_since is None or self.size > self.bytes_max // 2 or self._dropped_inside:
            return None
        return self._close(now)

    def _close(self, now: float) -> Gap:
        began = now if self._dropping_since is None else self._dropping_since
        gap = Gap(self._gap_lines + self._dropped_inside, self._gap_bytes, max(0.0, now - began))
        self._dropping_since = None
        self._dropped_inside = False
        self._gap_lines = self._gap_bytes = 0
        if self._kept_inside:
            self._add(b"\n")
        return gap

    def insert(self, line: bytes) -> None:
        """Put a line about the guard's own doing at the back, whatever the room: these are few. A line of its own."""
        self._add(b"\n" + line if self._kept_inside else line)

    def _add(self, data: bytes) -> None:
        self.added += len(data)
        self._keep(data)

    def end(self, now: float) -> Gap | None:
        """Drop everything that still waits; gives the last gap, that included, or None when nothing was lost."""
        if not self.size and self._dropping_since is None:
            return None
        if self._dropping_since is None:
            self._dropping_since = now
            self.gaps += 1
        self._drop(b"".join(self._chunks)[self._head :])
        self._chunks.clear()
        self.size = self._head = 0
        self._kept_inside = False
        return self._close(now)


@dataclass(slots=True)
class Patience:
    """Whether the program is held up until a place has caught up: a burst is no reason to lose lines, a slow place is one.

    Holding begins when half of the backlog waits. A place that then takes a quarter of it within `hold_s` is quick, and
    may hold again at once; one that does not is slow, and may not for `rest_s`. So a slow place, or one that takes nothing,
    holds the program up for at most `hold_s` in `hold_s + rest_s` seconds.
    """

    hold_s: float = 0.25
    rest_s: float = 10.0
    _since: float | None = None
    _rests_until: float = float("-inf")

    def holds(self, size: int, bytes_max: int, now: float) -> bool:
        """Whether to wait, with `size` bytes waiting of `bytes_max`."""
        if self._since is None:
            if size > bytes_max // 2 and now >= self._rests_until:
                self._since = now
        elif size <= bytes_max // 4:
            self._since = None
        elif now - self._since >= self.hold_s:
            self._since, self._rests_until = None, now + self.rest_s
        return self._since is not None


@dataclass(slots=True)
class GapBook:
    """Says what was dropped in few lines: the first gap at once, then sums at intervals that grow from `first_s` to `cap_s`.

    After `cap_s` without a gap it begins anew. No gap is left out of the sums.
    """

    first_s: float = 5.0
    cap_s: float = 900.0
    _interval_s: float = 0.0
    _told_at: float = 0.0
    _count: int = 0
    _lines: int = 0
    _size: int = 0
    _lasted_s: float = 0.0

    def add(self, gap: Gap) -> None:
        """Take in a gap that has ended."""
        self._count += 1
        self._lines += gap.lines
        self._size += gap.size
        self._lasted_s += gap.lasted_s

    def tell(self, now: float, *, last: bool = False) -> str | None:
        """Give the line that is due; with `last`, whatever has not been told yet."""
        since_s = now - self._told_at
        if self._count and (last or not self._interval_s or since_s >= self._interval_s):
            text = Gap(self._lines, self._size, self._lasted_s).tell()
            if self._count > 1:
                text = f"{text}, at {self._count:,} places"
            self._count = self._lines = self._size = 0
            self._lasted_s = 0.0
            self._told_at = now
            self._interval_s = min(self.cap_s, max(self.first_s, 2 * self._interval_s))
            return text
        if not self._count and since_s >= self.cap_s:
            self._interval_s = 0.0
        return None
