"""The lines that wait for a place that may be slow or full: bounded, in order, never a torn line, drops counted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from outlast.logs._gaps import Gap

RANKS: Final = 6
"""Ranks go from 0 to 5, those of logging's levels divided by ten: 1 is DEBUG, 5 is CRITICAL."""
NOTICE: Final = RANKS
"""Lines about gaps have a rank of their own above all others: they hold counts, and there are few of them."""
STREAM: Final = 0
"""The rank of output that has none."""


class Piece(NamedTuple):
    """Bytes that were put in at once."""

    order: int
    data: bytes
    rank: int
    lines: int
    """Lines it counts as. Pieces of a stream count as 0: their lines are counted when they are dropped."""
    gap: Gap | None = None
    """The gap that this line reports: if the line is lost, the gap has to be reported again."""


class Mark(NamedTuple):
    """The end of a piece of the front, counted in all bytes that are ever written."""

    end: int
    piece: Piece


@dataclass(slots=True)
class Backlog:
    """At most `bytes_max` bytes and `lines_max` lines (and a few lines about gaps), taken from the front, added at the back.

    It takes in either a stream of bytes (`put`) or whole lines with a rank (`put_line`). What does not fit is dropped and
    counted, newest first: the first line of a kind tells more than the thousandth. A line of a higher rank gets the
    room of lower ones: the newest of the lowest rank go first. What `peek` has returned is out of reach.

    Dropping starts when it is full and ends when it is half empty, so that one slow spell is one gap. Meanwhile nothing is
    taken in of a rank that was dropped. In a stream a gap starts and ends between lines: the rest of a line that was dropped
    is dropped too, and a line whose beginning is out of reach is ended with a newline.

    At every moment `taken + added = written + size + dropped_bytes`, and for lines
    `taken_lines = written_lines + dropped_lines + ` those that wait. Not safe for threads.
    """

    bytes_max: int
    lines_max: int | None = None
    size: int = 0
    """Bytes that wait."""
    taken: int = 0
    """Bytes offered in all."""
    added: int = 0
    """Bytes that nobody offered: newlines that end a cut line, and lines about gaps."""
    dropped_lines: int = 0
    dropped_bytes: int = 0
    taken_lines: int = 0
    """Lines that `put_line` was given, and of these:"""
    written_lines: int = 0
    gaps: int = 0
    """Gaps that were begun."""
    _queues: tuple[deque[Piece], ...] = field(default_factory=lambda: tuple(deque[Piece]() for _ in range(NOTICE + 1)))
    """By rank. The order of all of them is that of the pieces' numbers."""
    _lines: int = 0
    """Lines in the queues."""
    _bytes: list[int] = field(default_factory=lambda: [0] * (NOTICE + 1))
    """Bytes in each queue."""
    _notice_bytes: int = 0
    """Bytes of lines that report a gap, which take no room."""
    _order: int = 0
    _front: bytes = b""
    """The bytes that were taken off the queues to be written."""
    _head: int = 0
    """Bytes of the front that have been let go of."""
    _loaded: int = 0
    """Bytes that were ever put into the front: where its end lies in all that is written."""
    _marks: deque[Mark] = field(default_factory=deque[Mark])
    _dropping_since: float | None = None
    _gap_lines: int = 0
    _gap_bytes: int = 0
    _gap_ranks: list[int] = field(default_factory=lambda: [0] * RANKS)
    _gap_why: str = ""
    _kept_inside: bool = False
    """Whether the last byte that was kept is inside a line."""
    _dropped_inside: bool = False
    """Whether the last byte that was dropped is inside a line."""

    @property
    def is_dropping(self) -> bool:
        """Whether there is a gap at the end."""
        return self._dropping_since is not None

    @property
    def _is_half_empty(self) -> bool:
        size, lines_max = self.size - self._notice_bytes, self.lines_max
        return size <= self.bytes_max // 2 and (lines_max is None or self._lines <= lines_max // 2)

    # A stream

    def put(self, data: bytes, now: float) -> Gap | None:
        """Take `data` in, or as many whole lines of it as there is room for; return the gap that ended by it."""
        self.taken += len(data)
        gap = None
        if self.is_dropping:
            cut = data.find(b"\n") + 1 if self._dropped_inside else 0
            if not self._is_half_empty or (self._dropped_inside and not cut):
                self._drop(data, now)
                return None
            self._drop(data[:cut], now)
            data = data[cut:]
            gap = self._close(now)
        room = max(0, self.bytes_max - self.size)
        if len(data) <= room:
            self._keep(data)
            return gap
        cut = data.rfind(b"\n", 0, room) + 1
        self._keep(data[:cut])
        self._drop(data[cut:], now)
        return gap

    def _drop(self, data: bytes, now: float) -> None:
        if data:
            self._lose(STREAM, data.count(b"\n"), len(data), now)
            self._dropped_inside = not data.endswith(b"\n")

    # Lines with a rank

    def put_line(self, line: bytes, rank: int, now: float, why: str = "") -> bool:
        """Take in one whole line, which may be several of text, or drop it; return whether it was taken in."""
        size = len(line)
        self.taken += size
        self.taken_lines += 1
        if self._dropping_since is None and self.size + size <= self.bytes_max and self._lines != self.lines_max:
            # As below, at a third of the cost.
            self._order += 1
            self._queues[rank].append(Piece(self._order, line, rank, 1))
            self._lines += 1
            self._bytes[rank] += size
            self.size += size
            self._kept_inside = line[-1:] != b"\n"
            return True
        if (self.is_dropping and any(self._gap_ranks[rank:])) or not self._make_room(size, rank, now, why):
            self._lose(rank, 1, size, now, why)
            return False
        self._keep(line, rank, 1)
        return True

    def _make_room(self, size: int, rank: int, now: float, why: str) -> bool:
        """Drop of lower ranks what stands in the way of `size` bytes, if that helps; return whether there is room."""
        bytes_short = self.size - self._notice_bytes + size - self.bytes_max
        lines_short = 0 if self.lines_max is None else self._lines + 1 - self.lines_max
        if bytes_short <= 0 and lines_short <= 0:
            return True
        lower = self._queues[:rank]
        if bytes_short > sum(self._bytes[:rank]) or lines_short > sum(len(queue) for queue in lower):
            return False
        for queue in lower:
            while queue and (bytes_short > 0 or lines_short > 0):
                piece = self._take(queue.pop())
                self.size -= len(piece.data)
                bytes_short -= len(piece.data)
                lines_short -= 1
                self._lose(piece.rank, piece.lines, len(piece.data), now, why)
        return True

    # Both

    def _keep(self, data: bytes, rank: int = STREAM, lines: int = 0, gap: Gap | None = None) -> None:
        if data:
            self._order += 1
            self._queues[rank].append(Piece(self._order, data, rank, lines, gap))
            self._lines += lines
            self._bytes[rank] += len(data)
            self.size += len(data)
            self._kept_inside = not data.endswith(b"\n")

    def _lose(self, rank: int, lines: int, size: int, now: float, why: str = "") -> None:
        """Count what is dropped, and note it in the gap, which begins by it."""
        self._begin_gap(now, why)
        self._gap_lines += lines
        self._gap_bytes += size
        self._gap_ranks[rank] += lines
        self.dropped_lines += lines
        self.dropped_bytes += size

    def _begin_gap(self, now: float, why: str) -> None:
        if self._dropping_since is None:
            self._dropping_since = now
            self.gaps += 1
        self._gap_why = self._gap_why or why

    def _tell_again(self, gap: Gap, now: float) -> None:
        """Note in the present gap what an earlier one was, whose line has been lost; it is counted already."""
        self._begin_gap(now, gap.why)
        self._gap_lines += gap.lines
        self._gap_bytes += gap.size
        for rank, lines in gap.by_rank:
            self._gap_ranks[rank] += lines

    @property
    def is_over(self) -> bool:
        """Whether there is a gap that has ended, because there is room again."""
        return self.is_dropping and not self._dropped_inside and self._is_half_empty

    def settle(self, now: float) -> Gap | None:
        """Return the gap that has ended, if any; to be called before something is put in behind it."""
        return self._close(now) if self.is_over else None

    def _close(self, now: float) -> Gap:
        began = now if self._dropping_since is None else self._dropping_since
        ranks = tuple([(rank, lines) for rank, lines in enumerate(self._gap_ranks) if lines and rank > STREAM])
        lines = self._gap_lines + self._dropped_inside
        gap = Gap(lines, self._gap_bytes, max(0.0, now - began), ranks, self._gap_why)
        self._dropping_since = None
        self._dropped_inside = False
        self._gap_lines = self._gap_bytes = 0
        self._gap_ranks = [0] * RANKS
        self._gap_why = ""
        if self._kept_inside:
            self.insert(b"")
        return gap

    def insert(self, line: bytes, gap: Gap | None = None) -> None:
        """Put a line about ourselves at the back, whatever the room: these are few. A line of its own.

        With `gap`, which nothing else reports: if the line is lost, the gap is part of the next one.
        """
        data = b"\n" + line if self._kept_inside else line
        self.added += len(data)
        self._notice_bytes += len(data) if gap is not None else 0
        self._keep(data, NOTICE, 0, gap)

    def peek(self, bytes_max: int) -> bytes:
        """Return the front, at most `bytes_max` bytes of it, whole lines where it can; empty when nothing waits."""
        ready = len(self._front) - self._head
        if ready < bytes_max and ready < self.size:
            pieces = [self._front[self._head :]]
            while ready < bytes_max and ready < self.size:
                queue, until = self._oldest()
                while queue and queue[0].order < until and ready < bytes_max:
                    piece = self._take(queue.popleft())
                    size = len(piece.data)
                    pieces.append(piece.data)
                    ready += size
                    self._loaded += size
                    self._marks.append(Mark(self._loaded, piece))
            self._front, self._head = b"".join(pieces), 0
        data = self._front[self._head : self._head + bytes_max]
        if len(data) < self.size:
            data = data[: data.rfind(b"\n") + 1] or data
        return data

    def _oldest(self) -> tuple[deque[Piece], int]:
        """Return the queue with the oldest piece, and the number of the oldest one in the others: until there it comes first."""
        heads = sorted((queue[0].order, rank) for rank, queue in enumerate(self._queues) if queue)
        return self._queues[heads[0][1]], heads[1][0] if len(heads) > 1 else self._order + 1

    def _take(self, piece: Piece) -> Piece:
        """Note that a piece has left the queues."""
        self._lines -= piece.lines
        self._bytes[piece.rank] -= len(piece.data)
        return piece

    def done(self, size: int, now: float) -> Gap | None:
        """Let go of `size` bytes at the front, which were written; return the gap that ended by it."""
        self.peek(size)
        self.size -= size
        self._head += size
        if self._head == len(self._front):
            self._front, self._head = b"", 0
        written = self._loaded - (len(self._front) - self._head)
        while self._marks and self._marks[0].end <= written:
            mark = self._marks.popleft()
            self.written_lines += mark.piece.lines
            self._note_written(mark, written, size)
        if self._marks:
            self._note_written(self._marks[0], written, size)
        return self.settle(now)

    def _note_written(self, mark: Mark, written: int, size: int) -> None:
        """Count what the last `size` bytes that were written hold of a line about a gap: it takes no room any more."""
        if mark.piece.gap is not None:
            begin = mark.end - len(mark.piece.data)
            self._notice_bytes -= max(0, min(mark.end, written) - max(begin, written - size))

    def lose(self, now: float, why: str) -> None:
        """Drop the front: it was written to a place of which nobody knows how much of it has arrived."""
        left = self._front[self._head :]
        at = self._loaded - len(left)
        self.size -= len(left)
        self._front, self._head = b"", 0
        for end, piece in self._marks:
            self._lose_piece(piece, end - at, now, why)
            at = end
        self._marks.clear()

    def _lose_piece(self, piece: Piece, size: int, now: float, why: str) -> None:
        """Drop a piece of which `size` bytes are left."""
        if piece.gap is not None:
            self.added -= size
            self._notice_bytes -= min(size, len(piece.data))
            self._tell_again(piece.gap, now)
        elif piece.lines:
            self._lose(piece.rank, piece.lines, size, now, why)
        else:
            self._drop(piece.data[-size:], now)

    def end(self, now: float) -> Gap | None:
        """Drop everything that still waits; return the last gap, that included, or None when nothing was lost."""
        if self.size:
            self.lose(now, "")
        while self.size:
            piece = self._take(self._oldest()[0].popleft())
            self.size -= len(piece.data)
            self._lose_piece(piece, len(piece.data), now, "")
        self._kept_inside = False
        return None if self._dropping_since is None else self._close(now)
