"""Sameness of the values of a record: names and codes decide about it, counts and dates do not."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlast.logs._folding.raised import raw_exception, tell_exception
from outlast.logs._masking.texts import CODE, INSTANCE, TEXT_CHARS_MAX, Sort, masked, masked_code, said, sorts_in

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

Args: TypeAlias = Any
"""The values of a record: a tuple, which for a template with names holds one mapping."""


def raw_value(value: object, *, code: bool) -> Hashable:
    """Return what of a value decides about sameness: itself where it is a name or a code, its text where it is an object."""
    match value:
        case BaseException():
            return raw_exception(value)
        case str() | PurePath():
            return str(value)[:TEXT_CHARS_MAX]
        case None | bool() | Enum():
            return value
        case int() | float():
            return str(value) if code else type(value).__name__
        case _:
            return masked_code(said(value)) if code else masked(said(value))


def tell_value(value: object, *, code: bool) -> str:
    """Return what one value adds to a key."""
    match value:
        case bool() | None:
            return str(value)
        case int() | float() if not isinstance(value, Enum):
            return str(value) if code else "#"
        case BaseException():
            return tell_exception(value)
        case _:
            return masked_code(said(value)) if code else masked(said(value))


TIMES: Final = frozenset({"timestamp", "time", "ts", "elapsed", "duration", "attempt", "pid", "thread", "process"})
IDS: Final = ("event_id", "event-id")
"""In what any program prints `event_id` may be a number of Windows' event log, which is a code. No field of Python's is one."""
SORTS_MAX: Final = 4_096
SORTS: Final[dict[str, Sort]] = dict.fromkeys(("event", "exc_info", "stack_info", "level", "outlast.key", "id"), INSTANCE)


def sort_of(name: str) -> Sort:
    """Return what the name of a field says about its value: `http_status` is a code, `request_id` names an instance."""
    known = SORTS.get(name)
    if known is None:
        known = sorts_in((f"{name}=", ""), (False,))[0]
        if re.split("[-_]", name.lower(), maxsplit=1)[0] in TIMES or name.lower().endswith(IDS):
            known = INSTANCE
        if len(SORTS) < SORTS_MAX:
            SORTS[name] = known
    return known


def raw_fields(fields: Mapping[str, object]) -> tuple[Hashable, ...]:
    """Return what of named values decides about sameness, cheaply."""
    raw: list[Hashable] = []
    for name, value in fields.items():
        sort = SORTS.get(name)
        if sort is None:
            sort = sort_of(name)
        if sort is not INSTANCE:
            raw += (name, value if type(value) is str else raw_value(value, code=sort is CODE))
    return tuple(raw)


def tell_fields(fields: Mapping[str, object]) -> str:
    """Return what `raw_fields` does, masked, as text."""
    return " ".join(
        f"{name}={tell_value(value, code=sort is CODE)}"
        for name, value in fields.items()
        if (sort := sort_of(name)) is not INSTANCE
    )
