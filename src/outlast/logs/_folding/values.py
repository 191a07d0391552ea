"""What decides about sameness of the values of a record: names and codes do, counts and dates do not."""

from __future__ import annotations

from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlast.logs._folding.masks import CODE_WORDS, TEXT_CHARS_MAX, WORDS_CACHED_MAX, masked, said
from outlast.logs._folding.raised import raw_exception, tell_exception

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

Args: TypeAlias = Any
"""The values of a record: a tuple, which for a template with names holds one mapping."""


def raw_value(value: object, *, code: bool) -> Hashable:
    """What of a value decides about sameness: itself where it is a name or a code, what it says where it is a thing."""
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
            return said(value) if code else masked(said(value))


def tell_value(value: object, *, code: bool) -> str:
    """What one value adds to a key."""
    match value:
        case bool() | None:
            return str(value)
        case int() | float() if not isinstance(value, Enum):
            return str(value) if code else "#"
        case BaseException():
            return tell_exception(value)
        case _:
            return said(value) if code else masked(said(value))


class Sort(Enum):
    """What a field's name says about its value."""

    VALUE = 1
    CODE = 2
    """A number under this name is a code."""
    INSTANCE = 3
    """It names one occurrence, and nothing that two of them have in common."""


# Names of the module are read in a third of the time that members of an Enum take on Python 3.11.
VALUE: Final = Sort.VALUE
CODE: Final = Sort.CODE
INSTANCE: Final = Sort.INSTANCE
INSTANCES: Final = frozenset(
    {"request", "trace", "span", "correlation", "transaction", "session", "event", "message", "job", "task"}
)
TIMES: Final = frozenset({"timestamp", "time", "ts", "elapsed", "duration", "attempt", "pid", "thread", "process"})
SORTS: Final[dict[str, Sort]] = dict.fromkeys(("event", "exc_info", "stack_info", "level", "outlast.key"), Sort.INSTANCE)


def sort_of(name: str) -> Sort:
    """What the name of a field says about its value: `http_status` is a code, `request_id` names an instance."""
    known = SORTS.get(name)
    if known is None:
        parts = name.lower().replace("-", "_").split("_")
        known = Sort.VALUE
        if parts[-1] in CODE_WORDS:
            known = Sort.CODE
        elif parts[0] in TIMES or (parts[-1] == "id" and (len(parts) == 1 or parts[-2] in INSTANCES)):
            known = Sort.INSTANCE
        if len(SORTS) >= WORDS_CACHED_MAX:
            return known
        SORTS[name] = known
    return known


def raw_fields(fields: Mapping[str, object]) -> tuple[Hashable, ...]:
    """What of named values decides about sameness, cheaply."""
    raw: list[Hashable] = []
    for name, value in fields.items():
        sort = SORTS.get(name)
        if sort is None:
            sort = sort_of(name)
        if sort is not INSTANCE:
            raw += (name, value if type(value) is str else raw_value(value, code=sort is CODE))
    return tuple(raw)


def tell_fields(fields: Mapping[str, object]) -> str:
    """As `raw_fields`, masked, as text."""
    return " ".join(
        f"{name}={tell_value(value, code=sort is Sort.CODE)}"
        for name, value in fields.items()
        if (sort := sort_of(name)) is not Sort.INSTANCE
    )
