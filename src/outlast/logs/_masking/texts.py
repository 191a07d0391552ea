"""Masks texts of Python loggers, by the rules that hold for what any program prints.

A text and the template it is made from are judged by one function: a template is asked with samples in its gaps.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from outlast.logs._masking.shape import DIGITS, HEX, HEX_RUN_LEAST, MARK, blank, hex_runs, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.logs._masking.shape import Plan

TEXT_CHARS_MAX: Final = 2_000
"""Texts are compared, and kept, up to this length."""
PLANS_MAX: Final = 2_048
SHAPE_BYTES_MAX: Final = 512
"""The number and length of the shapes that are recognised at once, about 2 MB in all. Others are judged each time."""
CODE_CHARS_MAX: Final = 10
"""A longer text where a code stands is masked like any other: as long as `0xC0000005`."""
NUMBER: Final = b"000"
"""The sample of a number, as long as an HTTP status: what may be a code, may be one of three digits."""
_plans: dict[bytes, Plan] = {}


class Sort(Enum):
    """The meaning of a value, by the text before it or by the name of its field."""

    VALUE = 1
    CODE = 2
    """A number here is a code, or part of a name."""
    INSTANCE = 3
    """It counts, or names one occurrence, and nothing that two of them have in common."""


# Names of the module are read in a third of the time that members of an Enum take on Python 3.11.
VALUE: Final = Sort.VALUE
CODE: Final = Sort.CODE
INSTANCE: Final = Sort.INSTANCE


def masked(text: str) -> str:
    """Return `text` without what merely counts, dates or numbers an instance; codes, names and addresses of hosts stay."""
    text = text[:TEXT_CHARS_MAX]
    if text.isalpha():
        return text
    record = text.encode("utf-8", "backslashreplace")
    shape = record.translate(DIGITS)
    hexed = record.translate(HEX)
    if HEX_RUN_LEAST in hexed:
        # Letters alone may be a word.
        shape = blank(shape, tuple([(start, end) for start, end in hex_runs(hexed) if b"0" in shape[start:end]]))
    known = _plans.get(shape)
    if known is None:
        known = plan(shape, addresses_stay=True)
        if len(shape) <= SHAPE_BYTES_MAX:
            if len(_plans) >= PLANS_MAX:
                _plans.clear()
            _plans[shape] = known
    return known.key(record).replace(MARK, b"#").decode("utf-8", "backslashreplace")


def masked_code(text: str) -> str:
    """Return `text` where a code may stand: itself if it is as short as one, otherwise masked."""
    return text if len(text) <= CODE_CHARS_MAX else masked(text)


def sorts_in(pieces: Sequence[str], numeric: Sequence[bool]) -> list[Sort]:
    """Return what a template says about the values in the gaps between its `pieces`, of which some are surely numbers."""
    raw = [piece.encode("utf-8", "backslashreplace").translate(DIGITS) for piece in pieces]
    words = [b"zq" + bytes((97 + gap // 26 % 26, 97 + gap % 26)) for gap in range(len(numeric))]
    samples = [NUMBER if is_number else word for word, is_number in zip(words, numeric, strict=True)]
    of_words = plan(_filled(raw, words)).key(_filled(raw, words))
    sorts: list[Sort] = []
    for gap, word in enumerate(words):
        at = len(_filled(raw[: gap + 1], samples))
        slots = plan(_filled(raw, [*samples[:gap], NUMBER, *samples[gap + 1 :]])).slots
        is_code = any(start <= at < end for start, end in slots) or (gap and raw[gap] == b":" and not numeric[gap - 1])
        if word not in of_words or (numeric[gap] and not is_code):
            sorts.append(INSTANCE)
        else:
            sorts.append(CODE if is_code else VALUE)
    return sorts


def _filled(pieces: Sequence[bytes], samples: Sequence[bytes]) -> bytes:
    """Return a template with samples in its gaps, as far as there are pieces."""
    return pieces[0] + b"".join([sample + piece for sample, piece in zip(samples, pieces[1:], strict=False)])


def said(value: object) -> str:
    """Return `str(value)`, bounded; its type where it cannot say anything."""
    try:
        return str(value)[:TEXT_CHARS_MAX]
    except Exception:  # noqa: BLE001  # whatever a foreign __str__ raises
        return type(value).__qualname__
