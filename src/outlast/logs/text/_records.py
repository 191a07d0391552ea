"""Cut a stream of bytes into records: a line, with the lines that continue it.

A line continues the record before it if it is indented, closes brackets, or belongs to a traceback of Python, Java, Go or
JavaScript: `Traceback`, `Caused by:`, the exception's own line after the indented frames, and what chains two of them.
The newline at a record's end is no part of it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

LINE_BYTES_MAX: Final = 1 << 20
"""A longer line is handed on unfolded, in pieces; a longer record is cut between its lines."""

CONTINUES: Final = (
    rb"[ \t]{1,1024}[^\s]"
    rb"|[)}\]]{1,8}[;,.]?\r?(?:\n|\Z)"
    rb"|Traceback \(most recent call last\)"
    rb"|Caused by: "
    rb"|\.\.\. [0-9]"
    rb"|\r?\n(?:During handling of the above|The above exception was|Traceback \(most|goroutine [0-9])"
    rb"|During handling of the above exception|The above exception was the direct cause"
    rb"|goroutine [0-9]{1,12} \[|created by [\w./]{1,256}"
)
GO_FRAME: Final = rb"|[\w./*()-]{1,256}\([^\n]{0,512}\)\r?\n\t/"
"""Costs a look at every line, so it is asked only where a goroutine's trace was seen."""

REPEATS_LEAST: Final = 4
"""Lines are counted as they are while each comes this often in a chunk, on average."""

TRY_AGAIN_CHUNKS: Final = 16
"""The number of chunks of different lines after which counting is tried again."""

NEARLY_ALL: Final = 0.95
"""If one line is this share of a chunk, the next chunk is searched for rows of it."""

ROW_LINES: Final = (64, 16, 4, 1)
"""The lengths of the rows that are compared at once, in lines."""

is_suspect: Final = re.compile(rb"[ \t)}\]\r\n]|Tr|Ca|\.\.|Du|The |gor|cr|\Z").match
"""Matches a line that may continue the record before it."""
_SUSPECT_IN: Final = re.compile(rb"\n(?:[ \t)}\]\r\n]|Tr|Ca|\.\.|Du|The |gor|cr)")
_CUT: Final = re.compile(rb"\n(?!" + CONTINUES + rb")")
_CUT_GO: Final = re.compile(rb"\n(?!" + CONTINUES + GO_FRAME + rb")")
_GO_FRAME: Final = re.compile(rb"[\w./*()-]{1,256}\([^\n]{0,512}\)\r?\Z")
_HEAD: Final = b"Traceback (most recent call last)"
_NOT_INDENTED: Final = re.compile(rb"\n(?![ \t])")


class Batch:
    """Whole records, in order: lines that are `joined`, or, where some hold newlines, the `pieces`."""

    __slots__ = ("_pieces", "counts", "joined", "raw")

    def __init__(
        self,
        joined: bytes | None = None,
        pieces: list[bytes] | None = None,
        counts: Counter[bytes] | None = None,
        raw: bytes = b"",
    ) -> None:
        self.joined = joined
        self.counts = counts
        """The number of each record among them, if that was worth counting."""
        self.raw = raw
        """The beginning of a line that is too long; to be handed on as it is, after the records."""
        self._pieces = pieces

    @property
    def records(self) -> list[bytes]:
        """Every record."""
        if self._pieces is None:
            self._pieces = [] if self.joined is None else self.joined.split(b"\n")
        return self._pieces


class Records:
    """Takes bytes as they come and returns whole records, in order, every byte once.

    The last record is held until it is known that nothing continues it: by the next line, or by `flush`. Not more than
    `LINE_BYTES_MAX` bytes and one chunk are held.
    """

    __slots__ = ("_careful_in", "_different_in", "_rows", "held", "overlong", "overlong_lines")

    def __init__(self) -> None:
        self.held: bytes = b""
        """The bytes that came and were not returned yet."""
        self.overlong = False
        """Whether the bytes to come belong to a line that is too long."""
        self.overlong_lines = 0
        """The number of lines that were too long."""
        self._different_in = 0
        self._careful_in = 0
        self._rows: list[bytes] = []

    def skip(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of `data` that belongs to the line that is too long, with its newline, and the rest."""
        if not self.overlong:
            return b"", data
        end = data.find(b"\n") + 1
        if not end:
            return data, b""
        self.overlong = False
        return data[:end], data[end:]

    def feed(self, data: bytes) -> Batch:
        """Take bytes, and return the records that are complete. What `skip` took does not come here."""
        data = self.held + data if self.held else data
        end = data.rfind(b"\n")
        # The last whole line may be continued by what comes.
        last = data.rfind(b"\n", 0, end) if end > 0 else -1
        batch = self._lines(data[:last]) if last >= 0 and end - last > 2 else None
        if batch is not None and is_suspect(data, last + 1) is None:
            self.held = data[last + 1 :]
        elif end >= 0:
            batch, self.held = self._grouped(data, end)
        else:
            batch, self.held = Batch(), data
        return batch if len(self.held) <= LINE_BYTES_MAX else self._cut(batch)

    def flush(self) -> Batch:
        """Return the whole lines that are held, as if nothing continued them. The beginning of a line stays."""
        end = self.held.rfind(b"\n")
        if end < 0:
            return Batch()
        pieces, self.held = _pieces(self.held[:end]), self.held[end + 1 :]
        return Batch(pieces=pieces)

    def rest(self) -> bytes:
        """Return what `flush` left: a last line without its newline, or nothing."""
        data, self.held = self.held, b""
        return data

    def regroup(self, batch: Batch) -> Batch:
        """Cut a batch of lines again, with care: some line in it may continue another. `batch` is the last that was returned."""
        self._careful_in = TRY_AGAIN_CHUNKS
        data = (batch.joined or b"") + b"\n" + self.held
        regrouped, self.held = self._grouped(data, data.rfind(b"\n"))
        return regrouped

    def _lines(self, data: bytes) -> Batch | None:
        """Return every line as a record; None if a line is known to continue another. Lines that were not counted may do so."""
        if self._careful_in:
            self._careful_in -= 1
            if _SUSPECT_IN.search(data) or is_suspect(data):
                return None
        if self._different_in:
            self._different_in -= 1
            return Batch(data)
        counts = self._counted(data)
        if len(counts) * REPEATS_LEAST > sum(counts.values()):
            self._different_in = TRY_AGAIN_CHUNKS
            return Batch(data)
        if any(map(is_suspect, counts)):
            self._careful_in = TRY_AGAIN_CHUNKS
            return None
        return Batch(data, counts=counts)

    def _counted(self, data: bytes) -> Counter[bytes]:
        """Count the lines as they are, in the order in which they first come.

        While nearly all lines are one and the same, rows of it are compared at once, and only the others are looked at.
        """
        if not self._rows or not data.startswith(self._rows[-1]):
            counts = Counter(data.split(b"\n"))
            line, times = counts.most_common(1)[0]
            nearly_all = times >= NEARLY_ALL * sum(counts.values())
            self._rows = [(line + b"\n") * many for many in ROW_LINES] if nearly_all else []
            return counts
        others: list[bytes] = []
        data += b"\n"
        at = rest = 0
        while at < len(data):
            for row in self._rows:
                while data.startswith(row, at):
                    at += len(row)
            if at < len(data):
                end = data.index(b"\n", at)
                others.append(data[at:end])
                rest += end + 1 - at
                at = end + 1
        hot = self._rows[-1]
        counts = Counter({hot[:-1]: (len(data) - rest) // len(hot)})
        counts.update(others)
        if len(others) > (1 - NEARLY_ALL) * sum(counts.values()):
            self._rows = []
        return counts

    def _grouped(self, data: bytes, end: int) -> tuple[Batch, bytes]:
        pieces = _pieces(data[:end])
        held = [pieces.pop()]
        # An empty line may lie between two chained tracebacks; a frame of Go is known by the line behind it.
        while pieces and (held[-1] in {b"", b"\r"} or (b"goroutine " in pieces[-1] and _GO_FRAME.match(held[-1]))):
            held.append(pieces.pop())
        return Batch(pieces=pieces), b"\n".join(reversed(held)) + data[end:]

    def _cut(self, batch: Batch) -> Batch:
        """Keep to the bound: return the whole lines that are held, then call the rest too long."""
        records = [*batch.records, *self.flush().records]
        raw = b""
        if len(self.held) > LINE_BYTES_MAX:
            raw = self.rest()
            self.overlong = True
            self.overlong_lines += 1
        return Batch(pieces=records, raw=raw)


def _pieces(data: bytes) -> list[bytes]:
    """Cut whole lines into records."""
    pieces = (_CUT_GO if b"goroutine " in data else _CUT).split(data)
    if _HEAD not in data:
        return pieces
    records: list[bytes] = []
    unfinished = False
    for piece in pieces:
        if unfinished:
            records[-1] += b"\n" + piece
        else:
            records.append(piece)
        unfinished = _lacks_its_exception(records[-1])
    return records


def _lacks_its_exception(record: bytes) -> bool:
    """Return whether the record ends within the frames of a traceback: the line with the exception is still to come."""
    head = record.rfind(_HEAD)
    if head < 0 or (head and record[head - 1 : head] != b"\n"):
        return False
    return b"\n" in record[head:] and _NOT_INDENTED.search(record, head) is None
