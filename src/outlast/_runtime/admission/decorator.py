"""Work that comes in by calling a function."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from outlast._core.faults import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")
ByCall: TypeAlias = "V | Callable[..., V]"
"""A value, or a function that is called with the arguments of each call and returns it."""


def of_call(value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - of the type of each argument
    """Return what one call asks with. No value that is asked with can be called: texts, numbers, members of an enumeration."""
    return value(*args, **kwargs) if callable(value) else value


def async_only(name: str, function: Callable[P, Awaitable[R]]) -> None:
    """Raise `ConfigurationError` unless `function` is an async one, whose work can be waited for and given back at its end."""
    called = getattr(type(function), "__call__", None)  # noqa: B004 - an object whose call is an async function is one too
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(called):
        what = getattr(function, "__qualname__", type(function).__qualname__)
        msg = (
            f"admission {name}: admitted() takes async functions, and {what} is none: "
            "in a plain one, on the event loop's thread, use try_enter() and release the ticket"
        )
        raise ConfigurationError(msg)
