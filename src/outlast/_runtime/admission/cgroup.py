"""The memory limit that the kernel holds this process's control group to, and how much of it is used.

**Which.** A group may have no limit of its own and stand below one that has: the smallest limit on the way up from the group
holds, and what counts against it is what everybody below *that* level uses. Of equal limits it is the upper one's.

**Where.** /proc/self/cgroup says which group it is, in which version; /proc/self/mountinfo says which folder shows it. The two
agree whether or not the process has a namespace of its own for groups, since a mount names the group that stands at its top.
Levels above that top cannot be seen; version 1 says which limit comes from there.

**What counts.** Usage less the page cache of files, read once (inactive) or more often (active): the kernel takes either back
before it ends a process for want of memory, so it is room. What lies in tmpfs and shared memory is not, and counts.

See cgroups(7), and of the kernel's admin guide "Control Group v2" and "Memory Resource Controller" (version 1).
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT_BYTES_MAX: Final = 64 * 1024
"""More than any of these files has."""
NO_LIMIT_BYTES: Final = 2**60
"""Limits of an exbibyte and more are none. Version 1 says 9223372036854771712, which is 2^63 less one page, for "unlimited"."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The bytes used at the level that has the smallest limit, without what the kernel can take back; and that limit.

    Without a limit `limit_bytes` is infinite, and `used_bytes` 0.
    """

    used_bytes: int
    limit_bytes: float


@dataclass(frozen=True, slots=True)
class _Version:
    """The files of a folder of one version."""

    file_system: str
    limits: tuple[str, ...]
    used: str
    cache: tuple[str, str]
    """The lines of memory.stat that are page cache of files."""
    limit_above: str | None
    """The line of memory.stat with the smallest limit of this level and all above."""


_V1: Final = _Version(
    file_system="cgroup",
    limits=("memory.limit_in_bytes",),
    used="memory.usage_in_bytes",
    cache=("total_inactive_file", "total_active_file"),
    limit_above="hierarchical_memory_limit",
)
_V2: Final = _Version(
    file_system="cgroup2",
    # Above memory.high nobody is ended, but all are slowed down until the group is below it again.
    limits=("memory.max", "memory.high"),
    used="memory.current",
    cache=("inactive_file", "active_file"),
    limit_above=None,
)


class Groups:
    """Reads them, at `proc` and where the mounts are; it remembers where the group is, and looks again when that changes."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._found: tuple[str, tuple[Path, ...]] | None = None

    def usage(self) -> Usage | None:
        """Return what counts against the smallest limit; None where the kernel has no control groups.

        Raises `OSError` or `ValueError` if it cannot be found out.
        """
        try:
            text = text_of(self._proc / "self/cgroup")
        except FileNotFoundError:
            return None
        version, path = _group(text)
        if self._found is None or self._found[0] != text or not _is_group(self._found[1][0]):
            self._found = None
            self._found = text, _levels(self._proc / "self/mountinfo", version, path)
        return _usage(version, self._found[1])


def _group(text: str) -> tuple[_Version, str]:
    """Return the version that accounts for this process's memory, and the path of its group there."""
    unified = None
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _V1, path
        if not controllers:
            unified = path
    if unified is None:
        raise ValueError("no line of /proc/self/cgroup names a group that accounts for memory")
    return _V2, unified


def _levels(mountinfo: Path, version: _Version, path: str) -> tuple[Path, ...]:
    """Return the folders of the group and of all above it that can be seen, upwards."""
    found: list[tuple[float, list[Path]]] = []
    for root, top in _mounts(mountinfo, version):
        try:
            below = PurePosixPath(path).relative_to(root)
        except ValueError:
            # Seen from another namespace. What stands at the top is what somebody chose to show us: better than nothing.
            found.append((math.inf, [top]))
        else:
            below_top = [top.joinpath(*below.parts[:depth]) for depth in range(len(below.parts), -1, -1)]
            found.append((len(root.parts), below_top))
    # That with the most levels above the group. The folder of the group itself may be missing, while those above it are there.
    for _, folders in sorted(found):
        if levels := tuple(filter(_is_group, folders)):
            return levels
    raise ValueError(f"{mountinfo} names no folder of type {version.file_system} that shows the group {path}")


def _is_group(folder: Path) -> bool:
    """Return whether it is a group's folder, which has this file in both versions, and not what a mount has left behind."""
    return (folder / "cgroup.procs").exists()


def _mounts(mountinfo: Path, version: _Version) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the group at the top of each mount, and the folder it is mounted at. See proc_pid_mountinfo(5)."""
    with mountinfo.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.rstrip("\n").partition(" - ")
            kind, _, options = right.partition(" ")
            if kind == version.file_system and (version is _V2 or "memory" in options.rpartition(" ")[2].split(",")):
                root, top = left.split(" ")[3:5]
                yield PurePosixPath(_plain(root)), Path(_plain(top))


def _plain(field: str) -> str:
    r"""Undo the escapes of mountinfo: a space is \040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _usage(version: _Version, levels: tuple[Path, ...]) -> Usage:
    limit, level = math.inf, levels[-1]
    for folder in levels:
        here = min(_limit(folder / name) for name in version.limits)
        if here <= limit:
            limit, level = here, folder
    if version.limit_above is not None:
        above = _bound(_stat(levels[-1])[version.limit_above])
        if above < limit:
            limit, level = above, levels[-1]
    if limit == math.inf:
        return Usage(0, limit)
    used, stat = int(_line(level / version.used)), _stat(level)
    # The counters are not read in one instant, so that the difference may be below nothing.
    return Usage(max(0, used - sum(stat[name] for name in version.cache)), limit)


def _limit(file: Path) -> float:
    try:
        text = _line(file)
    except FileNotFoundError:
        # The root has none, nor has a level whose parent does not account for memory.
        return math.inf
    return math.inf if text == "max" else _bound(int(text))


def _bound(limit_bytes: int) -> float:
    return limit_bytes if limit_bytes < NO_LIMIT_BYTES else math.inf


def _line(file: Path) -> str:
    return text_of(file).strip()


def text_of(file: Path) -> str:
    """Return what stands in a file of the kernel's.

    In three calls of the kernel, where `read_text` makes seven: after each of them a thread waits for the interpreter's lock, for
    up to 5 ms while the event loop is busy, which is when the answer is needed.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _TEXT_BYTES_MAX).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)


class _Figures(dict[str, int]):
    def __missing__(self, name: str) -> int:
        raise ValueError(f"memory.stat has no line {name}")


def _stat(folder: Path) -> _Figures:
    """Return the figures of memory.stat, which has some fifty."""
    lines = _line(folder / "memory.stat").splitlines()
    return _Figures((name, int(figure)) for name, _, figure in (line.partition(" ") for line in lines))
