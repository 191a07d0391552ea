"""The faults of a disk: whom each concerns, and what an operator can do."""

from __future__ import annotations

import errno
from typing import Final

from outlast import Fault, Kind, Scope
from outlast.disk._calls import StuckError
from outlast.disk._watch import Condition, Watch
from outlast.extend import NO_ROOM, attach, clean, size_text

LOST: Final = frozenset({errno.EIO, errno.EROFS})
"""Codes by which a disk says that it cannot be relied on any more."""
DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""Codes by which this process, or the machine, has as many files open as it may. The disk is well."""
HANGS: Final = "hangs"
"""The code of a disk that does not answer, whichever call it was that has not returned."""

_MEND: Final = "then have it used again by its act, or restart"
_HINTS: Final = {
    errno.ENOSPC: "make room; writing goes on by itself",
    errno.EDQUOT: "make room, or raise the quota; writing goes on by itself",
    errno.EFBIG: "a file may not grow further: look at `ulimit -f` and at the limits of the file system",
    errno.EIO: f"look at the kernel's log and at the disk; {_MEND}",
    errno.EROFS: f"find out why it is read-only, and mount it for writing; {_MEND}",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), or find what keeps them open",
    errno.ENFILE: "the machine has as many files open as it may: raise `fs.file-max`, or find what keeps them open",
}


class SpaceLowError(OSError):
    """A refusal before the disk is full: EXHAUSTED, "low space" or "low inodes".

    `errno` is ENOSPC, so whoever handles a full disk handles this.
    """


def disk_rule(exc: BaseException, phase: str) -> Fault | None:
    """Classify what calls on the files of one disk raise. It speaks for the disk, so only what writes to it may ask this rule."""
    del phase
    if isinstance(exc, StuckError):
        return hangs(str(exc))
    number = exc.errno if isinstance(exc, OSError) else None
    code, hint = errno.errorcode.get(number or 0, ""), _HINTS.get(number or 0, "")
    if number in NO_ROOM:
        return Fault(Kind.EXHAUSTED, code, _reason(exc), hint=hint)
    if number in LOST:
        return Fault(Kind.FATAL, code, _reason(exc), scope=Scope.CHILD, hint=hint)
    if number in DESCRIPTORS:
        return Fault(Kind.TRANSIENT, code, _reason(exc), scope=Scope.CALL, hint=hint)
    return None


def _reason(exc: BaseException) -> str:
    """Return what the error says and of which file, without its number, which is the code."""
    if not isinstance(exc, OSError) or exc.strerror is None:
        return clean(str(exc))
    return clean(f"{exc.strerror}: {exc.filename}" if exc.filename else exc.strerror)


def hangs(what: str, source: str = "") -> Fault:
    """Return the fault of a disk that does not answer."""
    return Fault(Kind.TRANSIENT, HANGS, what, source, hint="look at the mount and at the kernel's log")


def of(watch: Watch, source: str) -> Fault:
    """Return the fault of a disk that is not well, for everybody."""
    match watch.condition:
        case Condition.LOW_INODES if watch.room is not None:
            levels = watch.rules.inode_levels(watch.room)
            said = f"{watch.room.available_inodes} of {watch.room.total_inodes or 'its'} inodes available"
            text = f"{said}; writing stops below {levels.enter} and goes on at {levels.leave}"
            return Fault(Kind.EXHAUSTED, Condition.LOW_INODES.value, text, source, hint="remove files; writing goes on by itself")
        case Condition.LOW_SPACE if watch.room is not None:
            return Fault(
                Kind.EXHAUSTED, Condition.LOW_SPACE.value, _space(watch), source, hint="make room; writing goes on by itself"
            )
        case _ if watch.hangs:
            return hangs(watch.reason, source)
        case _:
            text = f"its room is not known: {watch.reason}"
            return Fault(Kind.TRANSIENT, Condition.UNKNOWN.value, text, source, hint="look at the mount")


def too_large(watch: Watch, size: int, source: str) -> Fault:
    """Return the fault of one write of `size` bytes, while there is room enough for smaller ones."""
    text = f"{size_text(size)} do not fit: {_space(watch)}"
    hint = "make room, or write less at a time"
    return Fault(Kind.EXHAUSTED, Condition.LOW_SPACE.value, text, source, Scope.CALL, hint=hint)


def error(fault: Fault, path: str) -> OSError:
    """Return an error that carries the fault."""
    exc: OSError
    match fault.kind:
        case Kind.EXHAUSTED:
            exc = SpaceLowError(errno.ENOSPC, fault.reason, path)
        case Kind.FATAL:
            exc = OSError(getattr(errno, fault.code, errno.EIO), fault.reason, path)
        case _:
            exc = TimeoutError(errno.ETIMEDOUT, fault.reason, path)
    attach(exc, fault)
    return exc


def _space(watch: Watch) -> str:
    assert watch.room is not None  # noqa: S101 - who is low was seen
    levels = watch.rules.space_levels(watch.room)
    said = f"{size_text(watch.room.available_bytes)} of {size_text(watch.room.total_bytes)} available"
    return f"{said}; writing stops below {size_text(levels.enter)} and goes on at {size_text(levels.leave)}"
