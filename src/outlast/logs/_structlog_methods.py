"""The methods of structlog's bound loggers that ask before they do anything: the hot path of `outlast.logs.structlog`."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlast.logs._folding.sameness import PASSES

if TYPE_CHECKING:
    from outlast.logs.structlog import Folding

Method: TypeAlias = Any
"""A method of a bound logger."""
Its: TypeAlias = Any
"""What the caller of such a method gives: an event, and whatever belongs to it."""

SAME: Final = {"exception": "error", "warn": "warning", "msg": "info"}
"""What structlog's filtering logger calls by another name."""


def asks(folding: Folding) -> Method:
    """A function that says whether an event of a bound logger is to be shown."""
    folder, kind_of = folding.folder, folding.kind_of

    def passes(bound: Its, method: str, event: Its, args: Its, fields: Its) -> bool:
        try:
            kind = kind_of(bound, method, event, args, fields)
            return kind is PASSES or folder.passes(kind)
        except Exception:  # noqa: BLE001  # whatever a value's own methods raise
            folding.unjudged += 1
            return True

    return passes


def asks_in_proxy(folding: Folding, proxy: Method) -> Method:
    """The method through which all methods of a wrapper class go."""
    passes, levels = asks(folding), folding.levels

    def _proxy_to_logger(self: Its, method_name: str, event: Its = None, *args: Its, **fields: Its) -> Its:
        if method_name not in levels or passes(self, method_name, event, args, fields):
            return proxy(self, method_name, event, *args, **fields)
        return None

    return as_structlog(_proxy_to_logger)


def asks_first(folding: Folding, name: str, proxy: Method) -> Method:
    """A method of structlog's filtering logger that asks before it does what that one does. All its names are local."""
    passes, to, is_exception = asks(folding), SAME.get(name, name), name == "exception"
    folder, clock, takes_room = folding.folder, folding.folder.clock, folding.folder.takes_room
    acquire, release, released = folder.lock.acquire, folder.lock.release, folder.release_if_owned

    def method(self: Its, event: Its, *args: Its, **fields: Its) -> Its:
        if is_exception:
            fields.setdefault("exc_info", True)
        elif not args and (kinds := self._outlast_kinds):
            try:
                storm = kinds.get((to, event, *fields.items()), PASSES).storm
                if storm.folding:
                    now = clock()
                    acquire()
                    if storm.folding:  # It may have ended while this thread waited.
                        storm.pending += 1
                        storm.last_at = now
                        release()
                        return None
                    release()
                has_room = storm.room > 0 and takes_room(storm)
            except Exception:  # noqa: BLE001  # A value cannot be hashed or compared: `passes` looks into it.
                has_room = False
            except BaseException:  # A signal's exception may come between any two of these lines.
                released()
                raise
            if has_room:
                return proxy(self, to, event, **fields)
        if passes(self, to, event, args, fields):
            if args:
                event %= args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
            return proxy(self, to, event, **fields)
        return None

    return as_structlog(method)


def as_structlog(function: Method) -> Method:
    """The same function, in a module whose name structlog skips when it looks for the line of code that logs."""
    scope = {**globals(), "__name__": "structlog.outlast"}
    return FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
