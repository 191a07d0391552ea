"""The canonical key, by which two records are the same, and the shapes that determine it.

The **digit shape** of a record has every digit as `0`; its **hex shape** has every hex digit so. Both keep the length. The hex
shape alone says where the **hex runs** are: UUIDs, and words of eight or more hex digits. The digit shape with its hex runs
blanked is all that decides what is masked, so the digits that stay, the **slots**, lie at places that the shapes know. The
canonical key is made from the blanked shape and the slots and from nothing else: whoever has looked up the hex shape, the
digit shape outside the hex runs, and the slots, has looked up the key. That is what the fast way in `text/_keys.py` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from outlast.logs._masking.rules import RULES, URL_ADDRESS, URL_NUMBER, ZEROS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Parts = Callable[[bytes], Any]
    """Cuts spans out of a record: bytes for one span, a tuple for several."""

MARK: Final = b"\x1a"
"""Stands for what is masked. Where a record itself has this control character it counts as a question mark."""

DIGITS: Final = bytes.maketrans(b"0123456789\x1a", b"0000000000?")
HEX: Final = bytes.maketrans(b"0123456789abcdefABCDEF\x1a", b"0000000000000000000000?")

HEX_RUN_LEAST: Final = b"00000000"
"""Every hex run holds this in the hex shape: where it is not, there is none."""

HEX_RUN: Final = re.compile(
    rb"0{8}-0{4}-0{4}-0{4}-0{12}"
    rb"|(?<![0A-Zg-z_a-f])0{8,}+(?![0A-Za-z_])"
    rb"|(?<=[^0A-Za-z_]0x)0{9,}+(?![0A-Za-z_])"
)

MERGE_BYTES: Final = 64
"""Slots as near as this, with nothing masked between, are looked up as one span: one slice costs less than two."""

KEY_BYTES_MAX: Final = 120
"""A longer key is kept as its beginning and 16 bytes of BLAKE2b."""

CLIENT_PORT: Final = b"00000"

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The decision about a blanked shape: `pieces` and the digits at `slots` take turns and make the key."""

    pieces: tuple[bytes, ...]
    slots: tuple[Span, ...]
    spans: tuple[Span, ...]
    """The slots, joined where nothing masked lies between: to look up by."""

    def key(self, record: bytes) -> bytes:
        """Return the canonical key of a record that has this plan's shapes."""
        if not self.slots:
            return self.pieces[0]
        parts = [self.pieces[0]]
        for (start, end), piece in zip(self.slots, self.pieces[1:], strict=True):
            parts += (record[start:end], piece)
        return b"".join(parts)


def hex_runs(hex_shape: bytes) -> tuple[Span, ...]:
    """Return the spans of the hex runs."""
    if HEX_RUN_LEAST not in hex_shape:
        return ()
    return tuple(found.span() for found in HEX_RUN.finditer(hex_shape))


def outside(runs: tuple[Span, ...], length: int) -> tuple[Span, ...]:
    """Return the spans between `runs` in a record of `length` bytes."""
    edges = [0, *(edge for run in runs for edge in run), length]
    return tuple((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True))


def parts_of(spans: Sequence[Span]) -> Parts:
    """Make the function that cuts `spans` out of a record."""
    return itemgetter(*(slice(start, end) for start, end in spans))


def blank(digit_shape: bytes, runs: tuple[Span, ...]) -> bytes:
    """Return the digit shape with its hex runs blanked; the length stays."""
    if not runs:
        return digit_shape
    shape = bytearray(digit_shape)
    for start, end in runs:
        shape[start:end] = MARK * (end - start)
    return bytes(shape)


def plan(shape: bytes, *, addresses_stay: bool = False) -> Plan:
    """Decide from a blanked shape what is masked and what stays.

    With `addresses_stay` IP addresses stay, with a port of up to four digits; five are nearly always those of a client.
    """
    kept: list[bytes] = []
    pieces: list[bytes] = []
    slots: list[Span] = []
    spans: list[Span] = []
    at = masked_at = 0

    def mask(start: int) -> None:
        """Mask something that begins at `start`."""
        nonlocal masked_at
        kept.append(MARK)
        masked_at = start + 1

    def keep(start: int, end: int) -> None:
        """Let `shape[start:end]` stand; its digits become a slot."""
        digits = ZEROS.search(shape, start, end)
        if digits is None:
            kept.append(shape[start:end])
            return
        kept.append(shape[start : digits.start()])
        pieces.append(b"".join(kept))
        slots.append(digits.span())
        if spans and masked_at <= spans[-1][1] and digits.start() - spans[-1][1] <= MERGE_BYTES:
            spans[-1] = (spans[-1][0], digits.end())
        else:
            spans.append(digits.span())
        kept[:] = [shape[digits.end() : end]]

    for found in RULES.finditer(shape):
        start, end = found.span()
        rule = found.lastgroup or "m_stamp"
        if rule.startswith("plain"):
            continue
        kept.append(shape[at:start])
        at = end
        if rule == "url":
            _url(shape, start, end, keep, mask, addresses_stay=addresses_stay)
        elif rule.startswith("k_"):
            keep(start, end)
        elif rule.startswith("a_") and addresses_stay:
            stays = end - len(CLIENT_PORT) if shape.endswith(CLIENT_PORT, start, end) else end
            keep(start, stays)
            if stays < end:
                mask(stays)
        elif rule.startswith(("m_", "a_")):
            mask(start)
        else:
            keep(*found.span(rule))
            mask(found.end(rule))
    kept.append(shape[at:])
    pieces.append(b"".join(kept))
    return Plan(tuple(pieces), tuple(slots), tuple(spans))


def _url(
    shape: bytes, start: int, end: int, keep: Callable[[int, int], None], mask: Callable[[int], None], *, addresses_stay: bool
) -> None:
    """Mask addresses, unless they stay, and whole numbers between slashes and in the query.

    The rest, with ports and versions, stands.
    """
    scheme = shape.find(b"://", start, end)
    path = start if scheme < 0 else shape.find(b"/", scheme + 3, end)
    masks: list[Span] = []
    if scheme >= 0 and not addresses_stay:
        host = URL_ADDRESS.search(shape, scheme + 2, end if path < 0 else path)
        masks += [host.span()] if host else []
    if path >= 0:
        masks += [found.span() for found in URL_NUMBER.finditer(shape, path, end)]
    at = start
    for low, high in masks:
        keep(at, low)
        mask(low)
        at = high
    keep(at, end)


def canonical(record: bytes) -> bytes:
    """Return the canonical key of a record, the slow way. Equal keys are the same storm."""
    runs = hex_runs(record.translate(HEX))
    return plan(blank(record.translate(DIGITS), runs)).key(record)


def short(key: bytes) -> bytes:
    """Return a key of at most `KEY_BYTES_MAX` bytes; different keys stay different but for chance (2^-64)."""
    if len(key) <= KEY_BYTES_MAX:
        return key
    return key[: KEY_BYTES_MAX - 17] + MARK + blake2b(key, digest_size=16).digest()
