"""Sameness of exceptions: type, code, what they say, the raising line, their causes and members."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, TypeVar, cast

from outlast.logs._masking.texts import masked, said

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from types import TracebackType

CHAIN_MAX: Final = 4
"""The number of causes of an exception that are part of its kind."""
MEMBERS_MAX: Final = 32
"""The number of members of an exception group, and of the groups in it, that are part of its kind."""
T = TypeVar("T", bound="Hashable")
Group: TypeAlias = BaseExceptionGroup[Any]


def is_group(exc: BaseException) -> TypeGuard[Group]:
    """Return whether it is a group of exceptions, as a task group raises it."""
    return isinstance(exc, BaseExceptionGroup)


def raw_exception(exc: BaseException) -> Hashable:
    """Return what decides about an exception that is a value: its type and what it carries, members of a group too."""
    if is_group(exc):
        return (*_raw_group(exc), _members(exc, _raw_one))
    return _raw_one(exc)


def _raw_one(exc: BaseException) -> Hashable:
    """Return what `raw_exception` does, without members."""
    if is_group(exc):
        return _raw_group(exc)
    carried = (type(exc), exc.args, *exc.__dict__.values())
    if isinstance(exc, OSError):
        carried = (*carried, exc.errno, exc.filename)
    try:
        hash(carried)
    except TypeError:
        return _tell_one(exc)
    return carried


def _raw_group(exc: Group) -> tuple[Hashable, ...]:
    """Return a group's type and code, and its message: what `str` makes of it also has the number of its members."""
    return (_named(exc), masked(exc.message))


def tell_exception(exc: BaseException) -> str:
    """Return type, code and words of an exception and of its members, masked.

    A code is what `errno`, `sqlstate`, `status` or `code` holds.
    """
    return f"{_tell_one(exc)}{_tell_members(exc, _tell_one)}"


def _tell_one(exc: BaseException) -> str:
    """Return what `tell_exception` does, without members."""
    if is_group(exc):
        return f"{_named(exc)} {masked(exc.message)}"
    return f"{_named(exc)} {masked(said(exc))}"


def _named(exc: BaseException) -> str:
    """Return type and code."""
    codes = [
        str(code)
        for name in ("errno", "sqlstate", "status", "status_code", "code")
        if isinstance(code := getattr(exc, name, None), int | str)
    ]
    return f"{type(exc).__module__}.{type(exc).__qualname__}[{' '.join(codes)}]"


def raw_raised(exc: BaseException) -> Hashable:
    """Return what decides about an exception that is logged with its traceback: it, its raising line, its causes."""
    return tuple([(*_raw_line(link), _members(link, _raw_chain)) for link in _chain(exc)])


def _raw_chain(exc: BaseException) -> Hashable:
    """Return what `raw_raised` does, for a member of a group."""
    return tuple([_raw_line(link) for link in _chain(exc)])


def _raw_line(exc: BaseException) -> tuple[Hashable, Hashable]:
    return _raw_one(exc), raising_line(exc.__traceback__)


def tell_raised(exc: BaseException) -> str:
    """Return what `raw_raised` does, masked, as text."""
    return " from ".join([f"{_tell_line(link)}{_tell_members(link, _tell_chain)}" for link in _chain(exc)])


def _tell_chain(exc: BaseException) -> str:
    return " from ".join([_tell_line(link) for link in _chain(exc)])


def _tell_line(exc: BaseException) -> str:
    path, line = raising_line(exc.__traceback__)
    return f"{_tell_one(exc)} at {path}:{line}"


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exception and its causes, as a traceback shows them, at most `CHAIN_MAX`."""
    link: BaseException | None = exc
    for _ in range(CHAIN_MAX):
        if link is None:
            return
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _members(exc: BaseException, one: Callable[[BaseException], T]) -> frozenset[T]:
    """Return what `one` makes of the members of a group and of the groups in it, in any order, each once; of others nothing.

    Tasks fail in any order, and how many of them failed in one way is a count, which decides about nothing.
    """
    if not is_group(exc):
        return frozenset()
    found: list[BaseException] = [exc]
    for group in found:
        if is_group(group):
            found += group.exceptions[: MEMBERS_MAX + 1 - len(found)]
    return frozenset([one(member) for member in found[1:]])


def _tell_members(exc: BaseException, one: Callable[[BaseException], str]) -> str:
    told = _members(exc, one)
    return f" of ({'; '.join(sorted(told))})" if told else ""


def raising_line(traceback: TracebackType | None) -> tuple[str, int]:
    """Return file and number of the innermost line of a traceback."""
    if traceback is None:
        return "", 0
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno


def raised_in(exc_info: object) -> BaseException | None:
    """Return the exception that a call's `exc_info` means, if any."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return next((part for part in cast("tuple[object, ...]", exc_info) if isinstance(part, BaseException)), None)
    return sys.exc_info()[1] if exc_info else None
