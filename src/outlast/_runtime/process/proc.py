"""Processes as /proc shows them: which exist below one, since when, under what name. See proc(5)."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from outlast._core.redact import MASK, clean, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME_CHARS_MAX: Final = 80
CMDLINE_BYTES_MAX: Final = 4096
_PROC: Final = Path("/proc")
_GONE: Final = (FileNotFoundError, ProcessLookupError, PermissionError)
"""Errors of reading about a process that has ended, or that is not ours to see and then not ours to end either."""
_OPTION: Final = re.compile(r"--?[A-Za-z][\w-]*")


@dataclass(frozen=True, slots=True)
class Child:
    """A process that lives. Two are the same if their `pid` and `start_ticks` are: a pid alone is used again.

    `name` is its command line, without what looks like a secret and cut to 80 characters. `start_ticks` is when it
    started, in clock ticks since the machine did; `parent_pid` its parent when this was read.
    """

    pid: int
    start_ticks: int
    name: str = field(compare=False)
    parent_pid: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that matter here."""

    command: str
    state: str
    parent_pid: int
    cpu_ticks: int
    """Processor time used so far, of user and system, in clock ticks; that of its children is not among it."""
    threads: int
    start_ticks: int

    @property
    def dead(self) -> bool:
        """Whether it has ended and is only kept until its exit status is fetched.

        A process whose first thread has ended before the others looks like a zombie too, and is none.
        """
        return self.state in "ZX" and self.threads <= 1


def readable() -> bool:
    """Return whether there is a /proc, and one that numbers processes as `os.kill` does: another namespace's does not."""
    try:
        return str(_PROC.joinpath("self").readlink()) == str(os.getpid())
    except FileNotFoundError:
        return False


def stat(pid: int | Literal["self"], proc: Path | None = None) -> Stat | None:
    """Read the state of one process; None if it is gone. Raises `OSError` if nothing can be read: no descriptors left."""
    try:
        text = ((proc or _PROC) / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except _GONE:
        return None
    # The command stands in parentheses and may itself hold spaces and parentheses.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    # Numbered from 1 in proc(5), and `fields` begins with the third.
    return Stat(
        command=head.partition("(")[2],
        state=fields[3 - 3],
        parent_pid=int(fields[4 - 3]),
        cpu_ticks=int(fields[14 - 3]) + int(fields[15 - 3]),
        threads=int(fields[20 - 3]),
        start_ticks=int(fields[22 - 3]),
    )


def child(pid: int) -> Child | None:
    """Describe a process; None if it has ended."""
    seen = stat(pid)
    if seen is None or seen.dead:
        return None
    return Child(pid, seen.start_ticks, _name(pid) or clean(seen.command, NAME_CHARS_MAX), seen.parent_pid)


def lives(process: Child) -> bool:
    """Return whether this very process has not ended yet."""
    seen = stat(process.pid)
    return seen is not None and not seen.dead and seen.start_ticks == process.start_ticks


def below(pids: Iterable[int], *, leaving_out: frozenset[int] = frozenset()) -> list[Child]:
    """Return all that live below these processes, parents before their children; `leaving_out` but not what is below them."""
    children_of = _children_of()
    found: list[Child] = []
    seen = set(pids)
    todo = list(seen)
    while todo:
        for pid in children_of(todo.pop()):
            if pid not in seen:
                seen.add(pid)
                todo.append(pid)
                process = None if pid in leaving_out else child(pid)
                if process is not None:
                    found.append(process)
    return found


def children(pid: int) -> list[Child]:
    """Return those that live whose parent is `pid`."""
    return [process for each in _children_of()(pid) if (process := child(each)) is not None]


def helpers() -> frozenset[int]:
    """Return the processes that multiprocessing keeps for itself; they end by themselves when this one has ended."""
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    forkserver = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    pids = {getattr(tracker, "_pid", None), getattr(forkserver, "_forkserver_pid", None)}
    return frozenset(pid for pid in pids if isinstance(pid, int))


def _children_of() -> Callable[[int], list[int]]:
    """Return the function that lists a process's children: from the kernel's list, or else from a look at all processes."""
    if (_PROC / "thread-self" / "children").exists():
        return _listed
    everything: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (seen := stat(int(entry.name))) is not None:
            everything.setdefault(seen.parent_pid, []).append(int(entry.name))
    return lambda pid: everything.get(pid, [])


def _listed(pid: int) -> list[int]:
    found: dict[int, None] = {}
    # Twice, since one that ends during the reading can hide its neighbour.
    for _ in range(2):
        try:
            for task in (_PROC / str(pid) / "task").iterdir():
                try:
                    found |= dict.fromkeys(map(int, (task / "children").read_text(encoding="ascii").split()))
                except _GONE:
                    continue
        except _GONE:
            break
    return list(found)


def _name(pid: int) -> str:
    try:
        with (_PROC / str(pid) / "cmdline").open("rb") as file:
            raw = file.read(CMDLINE_BYTES_MAX)
    except _GONE:
        return ""
    words = raw.decode("utf-8", "replace").rstrip("\0").split("\0")
    for index, word in enumerate(words[:-1]):
        # "--password hunter2": the word before says that the next one is a secret.
        if _OPTION.fullmatch(word) and redact(f"{word}=x") != f"{word}=x":
            words[index + 1] = MASK
    return clean(" ".join(words), NAME_CHARS_MAX)
