"""Count the records of a chunk by canonical key, fast.

The fast way adapts to the stream. Where records repeat byte for byte, the chunk is counted by whole records and only the
different ones are looked at further. Where they do not, a record is looked up by its hex shape, then by its digit shape
outside the hex runs, then by the digits at its slots, which together determine the canonical key (see `shape`). What is not
known yet takes the slow way, once. Memory is bounded: when too much is known, everything is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from outlast.logs._masking.shape import (
    DIGITS,
    HEX,
    HEX_RUN_LEAST,
    MARK,
    blank,
    hex_runs,
    outside,
    parts_of,
    plan,
    short,
)
from outlast.logs.text._records import is_suspect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from outlast.logs._masking.shape import Parts, Plan
    from outlast.logs.text._records import Batch

    # How to go on from a digit shape: cut the slots and look up what they hold, or, for None, the kind itself.
    Leaf = tuple[Parts | None, Any, Plan]
    # What a line of a hex shape most likely is: the start of its digit shape, up to the first hex run; how to cut the rest of
    # it, and what is left then; then as in `Leaf`.
    Quick = tuple[slice, bytes, Parts, Any, Parts | None, Any]

KNOWN_MAX: Final = 16_384
"""The number of shapes and keys that are known at a time; about 1.5 KB each."""

KNOWN_BYTES_MAX: Final = 8 << 20
"""The bytes of shapes that are known at a time."""

MASKED_BYTES_MAX: Final = 32_768
"""A longer record is its own key, unmasked: it folds only with its exact likes."""


@dataclass(slots=True, eq=False)
class LineKind:
    """All records with one canonical key."""

    key: bytes
    always: bool
    """Whether it is never folded."""
    count: int = 0
    """The number of them in the chunk at hand."""


Found = list[tuple[LineKind, bytes]]
"""The kinds of a chunk in the order of their first records, which stand beside them."""


class MayContinue(Exception):  # noqa: N818 - no error, but news
    """A line may continue the record before it, so lines are no records."""


class Keys:
    """Knows the keys of a stream. `select` may narrow a canonical key down, `always` says which keys are never folded."""

    __slots__ = ("_always", "_kinds", "_known", "_known_bytes", "_quick", "_quick_digits", "_select", "_shapes", "misses")

    def __init__(self, *, select: Callable[[bytes], bytes] | None = None, always: Callable[[bytes], bool] | None = None) -> None:
        self._select = select
        self._always = always
        self._shapes: dict[bytes, tuple[Parts | None, dict[Any, Leaf]]] = {}
        self._quick: dict[bytes, Quick] = {}
        self._quick_digits: dict[bytes, tuple[Parts | None, Any]] = {}
        self._kinds: dict[bytes, LineKind] = {}
        self._known = 0
        self._known_bytes = 0
        self.misses = 0
        """The number of times that the slow way was taken."""

    def count(self, batch: Batch) -> Found:
        """Count the records by kind; `count` of the kinds returned holds for them until the caller sets it to 0 again.

        Raises `MayContinue` for lines that have to be grouped first; then nothing was counted.
        """
        if self._known > KNOWN_MAX or self._known_bytes > KNOWN_BYTES_MAX:
            self._forget()
        found: Found = []
        if batch.counts is not None:
            self._each(batch.counts.keys(), batch.counts.values(), found)
        elif batch.joined is None:
            self._each(batch.records, repeat(1), found)
        else:
            try:
                self._lines(batch.joined, found)
            except MayContinue:
                for kind, _ in found:
                    kind.count = 0
                raise
        return found

    def kind_of(self, record: bytes) -> LineKind:
        """Return the kind of one record."""
        hexed = record.translate(HEX)
        digit = record.translate(DIGITS)
        try:
            cut, leaves = self._shapes[hexed]
            slots, kind, _ = leaves[digit if cut is None else cut(digit)]
            known: LineKind = kind if slots is None else kind[slots(record)]
        except KeyError:
            return self._learn(record, digit, hexed)
        return known

    def _each(self, records: Iterable[bytes], counts: Iterable[int], found: Found) -> None:
        for record, count in zip(records, counts):  # noqa: B905 - `counts` may be endless
            kind = self.kind_of(record)
            if not kind.count:
                found.append((kind, record))
            kind.count += count

    def _lines(self, joined: bytes, found: Found) -> None:
        """Count lines: the loop that has to be fast. The shapes are those of the whole chunk, made at once."""
        lines = joined.split(b"\n")
        digits = joined.translate(DIGITS).split(b"\n")
        hexes = joined.translate(HEX)
        if HEX_RUN_LEAST not in hexes:
            self._without_hex_runs(lines, digits, found)
            return
        quick = self._quick
        for line, digit, hexed in zip(lines, digits, hexes.split(b"\n"), strict=True):
            try:
                first, start, cut, rest, slots, kind = quick[hexed]
                # Two slices cost half of what a tuple of them does.
                if digit[first] != start or cut(digit) != rest:
                    kind = self._kind_at(line, digit, hexed)
                elif slots is not None:
                    kind = kind[slots(line)]
            except KeyError:
                kind = self._kind_at(line, digit, hexed)
            kind.count = count = kind.count + 1
            if count == 1:
                found.append((kind, line))

    def _without_hex_runs(self, lines: list[bytes], digits: list[bytes], found: Found) -> None:
        """Count lines of which none holds a hex run: the digit shape says everything."""
        quick = self._quick_digits
        for line, digit in zip(lines, digits, strict=True):
            try:
                slots, kind = quick[digit]
                if slots is not None:
                    kind = kind[slots(line)]
            except KeyError:
                kind = self._kind_at(line, digit, None)
            kind.count = count = kind.count + 1
            if count == 1:
                found.append((kind, line))

    def _kind_at(self, line: bytes, digit: bytes, hexed: bytes | None) -> LineKind:
        """Return the kind of a line that the quick way does not know; it may know the next one of this shape."""
        if is_suspect(line):
            raise MayContinue
        kind = self.kind_of(line)
        if len(line) <= MASKED_BYTES_MAX:
            cut, leaves = self._shapes[line.translate(HEX)]
            slots, kinds, _ = leaves[digit if cut is None else cut(digit)]
            if hexed is None:
                self._quick_digits[digit] = (slots, kinds)
            else:
                (_, end), *others = outside(hex_runs(hexed), len(line))
                first, behind = slice(end), parts_of(others or [(end, end)])
                self._quick[hexed] = (first, digit[first], behind, behind(digit), slots, kinds)
        return kind

    def _learn(self, record: bytes, digit: bytes, hexed: bytes) -> LineKind:
        """Take the slow way and remember it."""
        self.misses += 1
        if len(record) > MASKED_BYTES_MAX:
            return self._kind(MARK + blake2b(record, digest_size=32).digest())
        runs = hex_runs(hexed)
        shape = self._shapes.get(hexed)
        if shape is None:
            shape = self._shapes[hexed] = (parts_of(outside(runs, len(record))) if runs else None, {})
            self._known_bytes += 2 * len(record)
        cut, leaves = shape
        rest = digit if cut is None else cut(digit)
        leaf = leaves.get(rest)
        if leaf is None:
            what = plan(blank(digit, runs))
            kinds: Any = {} if what.slots else self._kind(what.key(record))
            leaf = leaves[rest] = (parts_of(what.spans) if what.slots else None, kinds, what)
            self._known += 1
        slots, kinds, what = leaf
        if slots is None:
            kind: LineKind = kinds
        else:
            kind = kinds[slots(record)] = self._kind(what.key(record))
            self._known += 1
        return kind

    def _kind(self, key: bytes) -> LineKind:
        if self._select is not None:
            key = self._select(key)
        name = short(key)
        kind = self._kinds.get(name)
        if kind is None:
            always = self._always is not None and self._always(key)
            kind = self._kinds[name] = LineKind(name, always)
            self._known += 1
        return kind

    def _forget(self) -> None:
        self._shapes.clear()
        self._quick.clear()
        self._quick_digits.clear()
        self._kinds.clear()
        self._known = self._known_bytes = 0
