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

from outlast.logs.text.shape import (
    DIGITS,
    HEX,
    HEX_RUN_LEAST,
    MARK,
    blank,
    hex_runs,
    merged,
    outside,
    parts_of,
    plan,
    short,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from outlast.logs.text.records import Batch
    from outlast.logs.text.shape import Parts, Plan

KNOWN_MAX: Final = 16_384
"""How many shapes and keys are known at a time; about 1.5 KB each."""

KNOWN_BYTES_MAX: Final = 8 << 20
"""How many bytes of shapes are known at a time."""

MASKED_BYTES_MAX: Final = 32_768
"""A longer record is its own key, unmasked: it folds only with its exact likes."""

@dataclass(slots=True, eq=False)
class Kind:
    """All records with one canonical key."""

    key: bytes
    always: bool
    """Whether it is never folded."""
    count: int = 0
    """How many there were in the chunk at hand."""


Found = list[tuple[Kind, bytes]]
"""The kinds of a chunk in the order of their first records, which stand beside them."""

Leaf = "tuple[Parts | None, Any, Plan]"
"""How to go on from a digit shape: cut the slots and look them up, or, for None, the kind itself."""


class Keys:
    """Knows the keys of a stream. `select` may narrow a canonical key down, `always` says which keys are never folded."""

    __slots__ = ("_always", "_kinds", "_known", "_known_bytes", "_select", "_shapes", "misses")

    def __init__(self, *, select: Callable[[bytes], bytes] | None = None, always: Callable[[bytes], bool] | None = None) -> None:
        self._select = select
        self._always = always
        self._shapes: dict[bytes, tuple[Parts | None, dict[Any, Leaf]]] = {}
        self._kinds: dict[bytes, Kind] = {}
        self._known = 0
        self._known_bytes = 0
        self.misses = 0
        """How often the slow way was taken."""

    def count(self, batch: Batch) -> Found:
        """Count the records by kind; `count` of the kinds given holds for them until the caller sets it to 0 again."""
        if self._known > KNOWN_MAX or self._known_bytes > KNOWN_BYTES_MAX:
            self._forget()
        if batch.counts is None:
            return self._count(batch.records, batch.joined, repeat(1))
        distinct = list(batch.counts)
        return self._count(distinct, b"\n".join(distinct), batch.counts.values())

    def kind_of(self, record: bytes) -> Kind:
        """The kind of one record."""
        return self._look_up(record, record.translate(DIGITS), record.translate(HEX))

    def _count(self, records: list[bytes], joined: bytes | None, counts: Iterable[int]) -> Found:
        digits: Iterable[bytes]
        hexes: Iterable[bytes]
        if joined is None:
            digits = [record.translate(DIGITS) for record in records]
            hexes = [record.translate(HEX) for record in records]
        else:
            digits = joined.translate(DIGITS).split(b"\n")
            hex_shape = joined.translate(HEX)
            # Without hex runs the digit shape alone knows where the slots are.
            hexes = hex_shape.split(b"\n") if HEX_RUN_LEAST in hex_shape else digits
        found: Found = []
        shapes = self._shapes
        for record, digit, hexed, count in zip(records, digits, hexes, counts):  # noqa: B905 - `counts` may be endless
            try:
                cut, leaves = shapes[hexed]
                slots, kind, _ = leaves[digit if cut is None else cut(digit)]
                if slots is not None:
                    kind = kind[slots(record)]
            except KeyError:
                kind = self._look_up(record, digit, hexed)
            if kind.count:
                kind.count += count
            else:
                kind.count = count
                found.append((kind, record))
        return found

    def _look_up(self, record: bytes, digit: bytes, hexed: bytes) -> Kind:
        """Take the slow way and remember it."""
        self.misses += 1
        if len(record) > MASKED_BYTES_MAX:
            return self._kind(MARK + blake2b(record, digest_size=32).digest())
        shape = self._shapes.get(hexed)
        if shape is None:
            runs = hex_runs(hexed)
            shape = self._shapes[hexed] = (parts_of(outside(runs, len(record))) if runs else None, {})
            self._known_bytes += 2 * len(record)
        cut, leaves = shape
        rest = digit if cut is None else cut(digit)
        leaf = leaves.get(rest)
        if leaf is None:
            leaf = leaves[rest] = self._leaf(record, digit, hex_runs(hexed))
            self._known += 1
        slots, kind, what = leaf
        if slots is None:
            return kind
        parts = slots(record)
        if parts not in kind:
            kind[parts] = self._kind(what.key(record))
            self._known += 1
        return kind[parts]

    def _leaf(self, record: bytes, digit: bytes, runs: tuple[tuple[int, int], ...]) -> Leaf:
        what = plan(blank(digit, runs))
        if not what.slots:
            return None, self._kind(what.key(record)), what
        return parts_of(merged(what.slots, runs)), {}, what

    def _kind(self, key: bytes) -> Kind:
        if self._select is not None:
            key = self._select(key)
        name = short(key)
        kind = self._kinds.get(name)
        if kind is None:
            always = self._always is not None and self._always(key)
            kind = self._kinds[name] = Kind(name, always)
            self._known += 1
        return kind

    def _forget(self) -> None:
        self._shapes.clear()
        self._kinds.clear()
        self._known = self._known_bytes = 0
