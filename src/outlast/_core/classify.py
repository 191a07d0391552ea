"""From an exception to a fault: rules of the user and of adapters, then those for the standard library."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from outlast._core.faults import Fault, Kind, Scope, Unavailable, attached
from outlast._core.reaction import SEVERITY, Reaction
from outlast._core.redact import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Rule = Callable[[BaseException, str], Fault | None]

DEPTH_MAX: Final = 64
"""The length to which a chain of causes is followed."""
CANCELLED: Final = "cancelled"
"""The code of a cancellation that no stop of ours asked for."""
MEMBERS_MAX: Final = 256
"""The members of one exception group that are looked at."""


class Classifiers:
    """An ordered set of rules; the newest is asked first. Immutable: `with_rule` returns a new one.

    A rule takes the exception and the phase (a word of the adapter, such as "connect", or "") and returns a `Fault`, or
    None for "not mine". What no rule knows is a `BUG`.
    """

    __slots__ = ("_rules",)

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = tuple(rules)

    def with_rule(self, rule: Rule) -> Classifiers:
        """Return a set that asks `rule` first."""
        return Classifiers((rule, *self._rules))

    def also(self, other: Classifiers) -> Classifiers:
        """Return a set that asks the rules of `other` after its own."""
        return Classifiers(dict.fromkeys((*self._rules, *other._rules)))

    def classify(self, exc: BaseException, *, source: str = "", phase: str = "") -> Fault:
        """Classify an exception. `source` is filled in where the rule gave none.

        Looked at, in this order: a fault attached earlier, the rules, those for the standard library; first for
        the exception itself, then for the members of a group (the most severe counts), then along its
        `__cause__` chain. `__context__` is not: what happened to be handled when a bug struck is not its cause.
        """
        fault = self._known(exc, phase, DEPTH_MAX, set()) or bug(exc)
        return fault if fault.source else replace(fault, source=source)

    def fatal_behind(self, exc: BaseException) -> tuple[BaseException, Fault] | None:
        """Find a FATAL fault that was being handled when `exc`, the end of a wait because of a stop, was raised.

        A clean-up that awaits something is ended by the stop, and then hides what it cleaned up after. Only FATAL is looked
        for: every other kind is handled by an `except` every day, and whether it was cannot be seen.
        """
        seen: set[int] = set()
        waiting: list[BaseException | None] = [exc]
        while waiting and len(seen) < DEPTH_MAX + MEMBERS_MAX:
            hidden = waiting.pop()
            if hidden is None or id(hidden) in seen:
                continue
            seen.add(id(hidden))
            fault = self._known(hidden, "", DEPTH_MAX, set())
            if fault is not None and fault.reaction is Reaction.LEAVE:
                return hidden, fault
            if isinstance(hidden, BaseExceptionGroup):
                waiting += cast("BaseExceptionGroup[BaseException]", hidden).exceptions[:MEMBERS_MAX]
            waiting.append(hidden.__cause__ or hidden.__context__)
        return None

    def _known(self, exc: BaseException, phase: str, depth: int, seen: set[int]) -> Fault | None:
        if depth == 0 or id(exc) in seen:
            return None
        seen.add(id(exc))
        fault = attached(exc)
        if fault is None and isinstance(exc, Unavailable):
            fault = exc.fault
        if fault is None:
            fault = self._by_rule(exc, phase)
        if fault is None and isinstance(exc, BaseExceptionGroup):
            members = [
                self._known(member, phase, depth - 1, seen) or bug(member)
                for member in cast("BaseExceptionGroup[BaseException]", exc).exceptions[:MEMBERS_MAX]
            ]
            # A member that was cancelled was so because of another one.
            causes = [member for member in members if member.code != CANCELLED] or members
            fault = min(causes, key=lambda member: SEVERITY.index(member.kind))
        if fault is None and exc.__cause__ is not None:
            fault = self._known(exc.__cause__, phase, depth - 1, seen)
        return fault

    def _by_rule(self, exc: BaseException, phase: str) -> Fault | None:
        broken = ""
        fault: Fault | None = None
        for rule in self._rules:
            try:
                fault = rule(exc, phase)
            except Exception as error:  # noqa: BLE001 - a broken rule must not hide the fault it was asked about
                name = getattr(rule, "__qualname__", type(rule).__name__)
                broken += f" (the rule {name} failed with {clean(repr(error), 100)})"
                continue
            if fault is not None:
                break
        if fault is None:
            fault = standard_library(exc, phase)
        if broken:
            fault = fault or bug(exc)
            return replace(fault, reason=fault.reason + broken)
        return fault


def standard_library(exc: BaseException, phase: str = "") -> Fault | None:
    """Classify what the standard library raises; return None for what is not known."""
    for name in _class_names(exc):
        row = _BY_CLASS.get(name)
        if row is not None:
            kind, code, hint = row
            return Fault(kind, code, _reason(exc), hint=hint)
        if name in _CANCELLED:
            return _cancelled(exc)
        if name == "socket.gaierror":
            return _dns(exc)
        if name == "ssl.SSLError":
            return Fault(Kind.PERMANENT, "tls", _reason(exc), hint="compare the TLS settings of both sides")
        if name == "builtins.OSError":
            return _os_error(exc, phase)
    return None


def bug(exc: BaseException) -> Fault:
    """Return the fault of an exception that no rule knows: named by its type and the line that raised it."""
    where, traceback = "", exc.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "?")
        where = f"@{module}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return Fault(Kind.BUG, f"{type(exc).__name__}{where}", clean(f"{type(exc).__name__}: {_text(exc)}"))


_BY_CLASS: Final[dict[str, tuple[Kind, str, str]]] = {
    "builtins.KeyboardInterrupt": (Kind.STOPPING, "interrupted", ""),
    "builtins.SystemExit": (Kind.STOPPING, "exit", ""),
    "asyncio.exceptions.IncompleteReadError": (Kind.TRANSIENT, "eof", ""),
    "concurrent.futures._base.TimeoutError": (Kind.TRANSIENT, "timeout", ""),
    "builtins.MemoryError": (Kind.EXHAUSTED, "memory", "give the process more memory, or less to do"),
    "ssl.SSLCertVerificationError": (
        Kind.PERMANENT,
        "certificate",
        "check the certificate, its authority, the host name and the clock",
    ),
    "ssl.SSLEOFError": (Kind.TRANSIENT, "tls eof", ""),
    "ssl.SSLZeroReturnError": (Kind.TRANSIENT, "tls closed", ""),
    "ssl.SSLSyscallError": (Kind.TRANSIENT, "tls syscall", ""),
    "ssl.SSLWantReadError": (Kind.TRANSIENT, "tls want read", ""),
    "ssl.SSLWantWriteError": (Kind.TRANSIENT, "tls want write", ""),
    "multiprocessing.context.AuthenticationError": (Kind.PERMANENT, "authentication", "compare the keys"),
}
"""By fully qualified name, looked up along the class's ancestors, so that nothing has to be imported."""

_CANCELLED: Final = {"asyncio.exceptions.CancelledError", "concurrent.futures._base.CancelledError"}

_CODES: Final[dict[Kind, str]] = {
    Kind.TRANSIENT: (
        "ECONNREFUSED ECONNRESET ECONNABORTED EPIPE ETIMEDOUT EHOSTUNREACH ENETUNREACH ENETDOWN ENETRESET EHOSTDOWN "
        "EAGAIN EINTR ENOTCONN ESHUTDOWN EADDRNOTAVAIL ESTALE"
    ),
    Kind.EXHAUSTED: "ENOSPC EDQUOT EMFILE ENFILE ENOMEM ENOBUFS EFBIG ENOLCK EUSERS",
    Kind.CONTENDED: "EADDRINUSE EBUSY ETXTBSY EDEADLK",
    Kind.PERMANENT: "EACCES EPERM",
    Kind.FATAL: "EIO EROFS EUCLEAN ENOTRECOVERABLE EBADMSG ENXIO ENODEV",
}
_BY_ERRNO: Final[dict[int, Kind]] = {
    number: kind
    for kind, names in _CODES.items()
    for name in names.split()
    # Not every platform has every name.
    if isinstance(number := getattr(errno, name, None), int)
}

_DNS_CODES: Final[dict[int, str]] = {
    -2: "EAI_NONAME",
    -3: "EAI_AGAIN",
    -4: "EAI_FAIL",
    -5: "EAI_NODATA",
    8: "EAI_NONAME",
    2: "EAI_AGAIN",
    4: "EAI_FAIL",
}
"""Numbers of <netdb.h>: negative ones of glibc and musl, positive ones of the BSDs and macOS."""


def _class_names(exc: BaseException) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(exc).__mro__]


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the fault
        return "(its message cannot be shown)"


def _reason(exc: BaseException) -> str:
    text = _text(exc)
    return clean(text) if text else type(exc).__name__


def _cancelled(exc: BaseException) -> Fault:
    """Return the fault that caused a cancellation: that of the exception in its message, if there is one with a fault."""
    cause = exc.args[0] if exc.args else None
    fault = attached(cause) if isinstance(cause, BaseException) else None
    return fault or Fault(Kind.BUG, CANCELLED, "cancelled, and not because of a stop of ours")


def _dns(exc: BaseException) -> Fault:
    number = exc.errno if isinstance(exc, OSError) else None
    code = _DNS_CODES.get(number or 0, "EAI")
    # Not PERMANENT: a name that does not resolve right now has ended whole servers for good.
    return Fault(Kind.TRANSIENT, code, _reason(exc), hint="check the host name and the resolver")


def _os_error(exc: BaseException, phase: str) -> Fault | None:
    number = exc.errno if isinstance(exc, OSError) else None
    if number is None:
        if isinstance(exc, TimeoutError):
            return Fault(Kind.TRANSIENT, "timeout", _reason(exc))
        if isinstance(exc, ConnectionError):
            return Fault(Kind.TRANSIENT, _CONNECTION.get(type(exc), "connection"), _reason(exc))
        return None
    code = errno.errorcode.get(number, f"errno {number}")
    if number == errno.ENOENT and phase == "connect":
        return Fault(Kind.TRANSIENT, code, _reason(exc), hint="the socket is not there: is the server up?")
    kind = _BY_ERRNO.get(number)
    if kind is None:
        return None
    scope = Scope.CALL if kind in {Kind.CONTENDED, Kind.FATAL} else Scope.DEPENDENCY
    return Fault(kind, code, _reason(exc), scope=scope)


_CONNECTION: Final[dict[type[BaseException], str]] = {
    ConnectionRefusedError: "ECONNREFUSED",
    ConnectionResetError: "ECONNRESET",
    ConnectionAbortedError: "ECONNABORTED",
    BrokenPipeError: "EPIPE",
}
