"""What decides about sameness of exceptions: their type, their code, what they say, the raising line, their causes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, cast

from outlast.logs.masks import masked, said

if TYPE_CHECKING:
    from collections.abc import Hashable
    from types import TracebackType

CHAIN_MAX: Final = 4
"""How many causes of an exception are part of its kind."""


def raw_exception(exc: BaseException) -> Hashable:
    """What decides about sameness of an exception that is a value: its type and what it carries."""
    carried = (type(exc), exc.args, *exc.__dict__.values())
    if isinstance(exc, OSError):
        carried = (*carried, exc.errno, exc.filename)
    try:
        hash(carried)
    except TypeError:
        return tell_exception(exc)
    return carried


def tell_exception(exc: BaseException) -> str:
    """Type, code and words of an exception, masked. A code is what `errno`, `sqlstate`, `status` or `code` holds."""
    codes = [
        str(code)
        for name in ("errno", "sqlstate", "status", "status_code", "code")
        if isinstance(code := getattr(exc, name, None), int | str)
    ]
    return f"{type(exc).__module__}.{type(exc).__qualname__}[{' '.join(codes)}] {masked(said(exc))}"


def raw_raised(exc: BaseException) -> Hashable:
    """What decides about sameness of an exception that is logged with its traceback: it, its raising line, its causes."""
    parts: list[Hashable] = []
    link: BaseException | None = exc
    while link is not None and len(parts) < CHAIN_MAX:
        parts.append((raw_exception(link), raising_line(link.__traceback__)))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return tuple(parts)


def raising_line(traceback: TracebackType | None) -> tuple[str, int]:
    """File and number of the innermost line of a traceback."""
    if traceback is None:
        return "", 0
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno


def tell_raised(exc: BaseException) -> str:
    """As `raw_raised`, masked, as text."""
    parts: list[str] = []
    link: BaseException | None = exc
    while link is not None and len(parts) < CHAIN_MAX:
        path, line = raising_line(link.__traceback__)
        parts.append(f"{tell_exception(link)} at {path}:{line}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return " from ".join(parts)


def raised_in(exc_info: object) -> BaseException | None:
    """The exception that a call's `exc_info` means, if any."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return next((part for part in cast("tuple[object, ...]", exc_info) if isinstance(part, BaseException)), None)
    return sys.exc_info()[1] if exc_info else None
