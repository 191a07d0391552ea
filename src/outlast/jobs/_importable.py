"""The place where a child process finds a handler: module and name, since a function cannot be sent."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import runpy
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeGuard

from outlast import Classifiers, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MAIN: Final = "__main__"
MAIN_IN_CHILD: Final = "__mp_main__"
"""The name under which a child runs the program's main module: the one that multiprocessing uses, so that a guard
`if __name__ == "__main__"` holds here as there."""

_CLASSIFIERS: Final = "__outlast_classifiers__"


@dataclass(frozen=True, slots=True)
class Home:
    """The place where a function is defined at the top level: module and qualified name."""

    module: str
    name: str

    def __str__(self) -> str:
        """Return it as `outlast up` takes it."""
        return f"{self.module}:{self.name}"

    def found(self) -> Any:  # noqa: ANN401 - whatever stands there
        """Import the module and return what stands there. Raises what the import raises, and `AttributeError`."""
        found: Any = importlib.import_module(self.module)
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


def is_coroutine_function(handler: object) -> TypeGuard[Callable[..., Awaitable[Any]]]:
    """Return whether a call makes a coroutine: it is an `async def`, a partial of one, or an object whose `__call__` is one."""
    method = getattr(type(handler), "__call__", None)  # noqa: B004 - not whether there is one, but which
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(method)


def place_of(kind: str, handler: Callable[..., Any]) -> Home:
    """Return where a child process will find the handler of `kind`. Raises `ConfigurationError` if it could not."""
    if is_coroutine_function(handler):
        _refuse(kind, handler, "is a coroutine function; make it a plain function, which may call asyncio.run")
    module, name = getattr(handler, "__module__", None), getattr(handler, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        _refuse(kind, handler, f"is a {type(handler).__name__} without a name; define a function at the top level of a module")
    if "<" in name:
        _refuse(kind, handler, "is defined inside a function; define it at the top level of a module")
    return Home(module, name)


def check(kind: str, handler: Callable[..., Any], place: Home) -> None:
    """Check, once everything is imported, that the place holds this very handler. Raises `ConfigurationError`."""
    try:
        found = place.found()
    except (ImportError, AttributeError) as error:
        _refuse(kind, handler, f"is not at {place} ({error}); define it at the top level of a module that can be imported")
    if found is not handler:
        _refuse(kind, handler, f"is not what stands at {place}; make @jobs.handler the outermost decorator, and keep the name")
    if place.module == MAIN and main_source() is None:
        _refuse(kind, handler, "is defined in an interactive session; put it into a module")


def carry(handler: Callable[..., Any], classifiers: Classifiers) -> None:
    """Attach the rules of its queue to the handler: the child finds them on it and not elsewhere."""
    with contextlib.suppress(AttributeError, TypeError):
        # A function written in C takes no attributes: the rules for the standard library must do.
        setattr(handler, _CLASSIFIERS, classifiers)


def carried(handler: Callable[..., Any]) -> Classifiers:
    """Return the rules that are attached to a handler."""
    classifiers = getattr(handler, _CLASSIFIERS, None)
    return classifiers if isinstance(classifiers, Classifiers) else Classifiers()


def main_source() -> dict[str, str] | None:
    """Return how a child finds the main module of this program: by name or by path. None if it has neither."""
    main = sys.modules[MAIN]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return {"name": spec.name}
    path = getattr(main, "__file__", None)
    return None if path is None else {"path": path}


def run_main(source: dict[str, str]) -> None:
    """Run the program's main module in a child, and put it where the places look for it."""
    if "name" in source:
        content = runpy.run_module(source["name"], run_name=MAIN_IN_CHILD, alter_sys=True)
    else:
        content = runpy.run_path(source["path"], run_name=MAIN_IN_CHILD)
    module = types.ModuleType(MAIN_IN_CHILD)
    module.__dict__.update(content)
    sys.modules[MAIN] = sys.modules[MAIN_IN_CHILD] = module


def _refuse(kind: str, handler: object, reason: str) -> NoReturn:
    name = getattr(handler, "__qualname__", type(handler).__name__)
    msg = f"jobs: the handler of {kind!r} is to run in a child process (process=True), but {name} {reason}"
    raise ConfigurationError(msg)
