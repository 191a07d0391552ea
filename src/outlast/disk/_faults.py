"""The faults of a disk: whom each concerns, and what an operator can do."""

from __future__ import annotations

import errno
from typing import Final

from outlast import Fault, Kind, Scope
from outlast.extend import NO_ROOM, attach, clean

LOST: Final = frozenset({errno.EIO, errno.EROFS})
"""Codes by which a disk says that it cannot be relied on any more."""
DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""Codes by which this process, or the machine, has as many files open as it may. The disk is well."""
HANGS: Final = "hangs"
"""The code of a disk that does not answer: its condition is not known."""

_HINTS: Final = {
    errno.ENOSPC: "make room on the disk; writing goes on by itself",
    errno.EDQUOT: "make room, or raise the quota; writing goes on by itself",
    errno.EFBIG: "a file may not grow further: look at `ulimit -f` and at the limits of the file system",
    errno.EIO: "look at the kernel's log and at the disk; then use it again by its act, or restart",
    errno.EROFS: "find out why the disk is read-only, mount it again for writing; then use it again by its act, or restart",
}


class SpaceLowError(OSError):
    """A refusal before the disk is full. It carries the fault, as any error here does: `EXHAUSTED`, "low space" or "low inodes".

    `errno` is ENOSPC, so whoever handles a full disk handles this.
    """


def disk_rule(exc: BaseException, phase: str) -> Fault | None:
    """Classify what calls on files raise of a disk. Ask it first: for others ENOSPC or EIO may be one call's trouble."""
    del phase
    number = exc.errno if isinstance(exc, OSError) else None
    if number is None:
        return None
    code, reason, hint = errno.errorcode.get(number, str(number)), clean(str(exc)), _HINTS.get(number, "")
    if number in NO_ROOM:
        return Fault(Kind.EXHAUSTED, code, reason, hint=hint)
    if number in LOST:
        return Fault(Kind.FATAL, code, reason, scope=Scope.CALL, hint=hint)
    if number in DESCRIPTORS:
        hint = "raise the limit of open files (`ulimit -n`), or find what keeps them open"
        return Fault(Kind.TRANSIENT, code, reason, scope=Scope.CALL, hint=hint)
    return None


def error(fault: Fault, path: str) -> OSError:
    """Return an error that carries the fault."""
    exc: OSError
    match fault.kind:
        case Kind.EXHAUSTED:
            exc = SpaceLowError(errno.ENOSPC, fault.reason, path)
        case Kind.FATAL:
            exc = OSError(errno.EIO, fault.reason, path)
        case _:
            exc = TimeoutError(errno.ETIMEDOUT, fault.reason, path)
    attach(exc, fault)
    return exc
