"""A small real disk for tests: it runs full in a moment, and fails when it is told to."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

from outlast.testing._disks import mounts
from outlast.testing._disks.faulty_files import FaultyFiles
from outlast.testing._disks.mounts import SmallDiskError
from outlast.testing._reaper import Reaper

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

DiskKind: TypeAlias = Literal["tmpfs", "ext4", "faulty"]
DiskCall: TypeAlias = Literal[
    "open",
    "open for writing",
    "read",
    "write",
    "fsync",
    "truncate",
    "allocate",
    "unlink",
    "rename",
    "mkdir",
    "rmdir",
    "readdir",
    "statvfs",
]
"""The calls that a faulty disk knows. "fsync" is fdatasync and the fsync of a folder too."""
_TRIAL_BYTES: Final = 8 << 20
_FILLER: Final = "filler"


class SmallDisk:
    """A file system of `size_bytes` of one's own, mounted while the `with` block runs.

        with SmallDisk(64 << 20, "ext4") as disk:
            (disk.path / "file").write_bytes(b"...")
            disk.fill(leave_bytes=0)

    `path` is an empty folder on it. "tmpfs" is in memory; "ext4" lies in a sparse file below the temporary directory, on a loop
    device, and sets nothing aside for root; "faulty" is a tmpfs seen through a FUSE file system in a process of its own (needs
    mfusepy and libfuse), whose calls fail and hang as told. `inodes` bounds the number of files and folders.

    Mounting needs root: `available` says what is missing, `command` runs a program in a namespace where it is root. A process
    that ends unmounts what it has; one that is killed is cleaned up after by a helper of the shell. Any thread may use it.
    """

    def __init__(self, size_bytes: int, kind: DiskKind = "tmpfs", *, inodes: int | None = None) -> None:
        """Describe it; `start` or `with` mounts it."""
        self.size_bytes = size_bytes
        self.kind: DiskKind = kind
        self._inodes = inodes
        self._folder: Path | None = None
        self._mounted: list[Path] = []
        self._faulty: FaultyFiles | None = None
        self._reaper: Reaper | None = None
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        """Mount it."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        """Remove it with all that is on it."""
        self.remove()

    @staticmethod
    def available(kind: DiskKind) -> str | None:
        """Return None if this process can make a disk of `kind`, else the reason why not. Mounts one once to find out."""
        return _reason(kind)

    @staticmethod
    def command(program: Sequence[str]) -> list[str]:
        """Return the command that runs `program` where it may mount a "tmpfs": in a user namespace in which it is root.

        There it has no rights that its user does not have: it is the way to test without root. Its disks are its own, unseen from
        outside, and end with it. Raises SmallDiskError where namespaces are not allowed.
        """
        command = mounts.command_with_rights(list(program))
        mounts.run(*command[: -len(program)], "true")
        return command

    @property
    def path(self) -> Path:
        """A folder on the disk that is empty at first."""
        return self._root / ("faulty" if self.kind == "faulty" else "disk/files")

    @property
    def available_bytes(self) -> int:
        """The bytes that are available, whatever a faulty disk says of itself."""
        room = os.statvfs(self._root / "disk")
        return room.f_bavail * room.f_frsize

    def start(self) -> None:
        """Mount it. Raises SmallDiskError when that does not work, and leaves nothing behind then."""
        if self._folder is not None:
            return
        mounts.require_rights()
        self._folder = folder = Path(tempfile.mkdtemp(prefix="outlast-disk-")).resolve()
        atexit.register(self._at_exit)
        self._reaper = Reaper(mounts.REAP, *map(str, (folder, folder / "faulty", folder / "disk")))
        try:
            self._mount(folder)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Unmount it; what is on it is gone. Calls that hang on a faulty disk fail."""
        if self._folder is None:
            return
        if self._faulty is not None:
            self._faulty.close()
            self._faulty = None
        while self._mounted:
            mounts.unmount(self._mounted.pop())
        shutil.rmtree(self._folder)
        self._folder = None
        if self._reaper is not None:
            self._reaper.dismiss()
            self._reaper = None
        atexit.unregister(self._at_exit)

    def fill(self, leave_bytes: int = 0) -> None:
        """Let a neighbour's file take what is there, at once, until `leave_bytes` are available; or give back so much.

        Whole blocks are counted, so up to a block more may be left. It lies beside `path`, not below it.
        """
        descriptor = os.open(self._root / "disk" / _FILLER, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for _ in range(8):
                size, more = os.fstat(descriptor).st_size, self.available_bytes - leave_bytes
                if more < 0:
                    os.ftruncate(descriptor, max(0, size + more))
                    return
                if more < os.fstatvfs(descriptor).f_frsize:
                    return
                # A file system of blocks needs some for where the others are, so it may take a few steps.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(descriptor, size, more)
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Remove the neighbour's file: its space is available at once."""
        (self._root / "disk" / _FILLER).unlink(missing_ok=True)

    def resize(self, size_bytes: int) -> None:
        """Make the disk larger or smaller while it is used; not an "ext4". Raises SmallDiskError below what is stored on it."""
        if self.kind == "ext4":
            msg = "an ext4 of a small disk keeps its size: use fill and free, or a tmpfs"
            raise ValueError(msg)
        mounts.run("mount", "-o", f"remount,size={size_bytes}", self._root / "disk")
        self.size_bytes = size_bytes

    def read_only(self, yes: bool = True) -> None:  # noqa: FBT001, FBT002 - it is set by position, as a switch
        """Make the disk refuse changes with EROFS, or take them again.

        A "tmpfs" on which a file is open for writing cannot be switched: SmallDiskError. An "ext4" in that state is stopped as
        after an error of its own; it stays so until it is removed. A "faulty" one can be switched at any time.
        """
        if self._faulty is not None:
            self._faulty.order("make_read_only", yes)
            return
        point = self._root / "disk"
        try:
            mounts.run("mount", "-o", "remount,ro" if yes else "remount,rw", point)
        except SmallDiskError:
            if self.kind != "ext4" or not yes:
                raise
            mounts.run("mount", "-o", "remount,abort", point)

    def fail(self, call: DiskCall, number: int, *, times: int | None = None, path_contains: str = "") -> None:
        """Let `call` fail with the errno `number`, `times` times or until `heal`, on paths with a text in them. "faulty" only."""
        self._orders("fail", call, number, times, path_contains)

    def hang(self, call: DiskCall) -> None:
        """Let each `call` that begins from now on not return until `heal`. "faulty" only.

        As on a real disk, a process in such a call does not end before it returns, whatever kills it.
        """
        self._orders("hang", call)

    def quota(self, size_bytes: int | None) -> None:
        """Refuse writes beyond so many bytes in use on the disk, the neighbour's included, with EDQUOT. "faulty" only."""
        self._orders("quota", size_bytes)

    def statvfs(self, available: int | None) -> None:
        """Let statvfs say that so many bytes are available, as it does inside a quota; None: the truth. "faulty" only."""
        self._orders("statvfs", available)

    def heal(self) -> None:
        """End every fault of a "faulty" disk; what hung is done now. The neighbour's file stays."""
        self._orders("heal")

    def counts(self) -> tuple[dict[DiskCall, int], dict[DiskCall, int]]:
        """Return the calls that began, by name, and those that failed by order, not for lack of room. "faulty" only."""
        counts = self._orders("counts")
        return counts["calls"], counts["failed"]

    def _orders(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
        if self.kind != "faulty":
            msg = f"{name}: only a disk of kind 'faulty' fails by order, this one is {self.kind!r}"
            raise ValueError(msg)
        if self._faulty is None:
            msg = f"{name}: the disk is not mounted; use it in a `with` block, or call start first"
            raise SmallDiskError(msg)
        return self._faulty.order(name, *arguments)

    @property
    def _root(self) -> Path:
        if self._folder is None:
            msg = "the disk is not mounted; use it in a `with` block, or call start first"
            raise SmallDiskError(msg)
        return self._folder

    def _mount(self, folder: Path) -> None:
        disk = folder / "disk"
        disk.mkdir()
        if self.kind == "ext4":
            mounts.mount_ext4(disk, folder / "image", self.size_bytes, self._inodes)
        else:
            mounts.mount_memory(disk, self.size_bytes, self._inodes)
        self._mounted.append(disk)
        (disk / "files").mkdir()
        if self.kind == "faulty":
            faulty = folder / "faulty"
            faulty.mkdir()
            self._faulty = FaultyFiles(disk / "files", faulty)
            self._mounted.append(faulty)

    def _at_exit(self) -> None:
        # A child that was forked inherits the handler, and must not remove what its parent still uses.
        if os.getpid() == self._owner:
            self.remove()


@functools.cache
def _reason(kind: DiskKind) -> str | None:
    try:
        with SmallDisk(_TRIAL_BYTES, kind):
            return None
    except (SmallDiskError, OSError, subprocess.SubprocessError) as exc:
        return f"no small disk of kind {kind!r}: {exc}"
