"""The program of a faulty disk: a FUSE file system over a folder whose calls fail and hang as its owner says.

It is started by its path with the folder and the mount point, so it imports nothing of the package. Orders are lines of JSON
on its input, `[order, ...arguments]`; each is answered by a line once it holds. It ends with its input, which ends with its
owner; an owner that was killed in a call that hangs here keeps its end of the pipe, so the owner is looked at as well.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import select
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = frozenset(("open for writing", "write", "truncate", "allocate", "unlink", "rename", "mkdir", "rmdir", "fsync"))
"""The calls that a read-only disk refuses. Linux lets fsync pass there; here bytes may be waiting that cannot be written."""
OWNER_EVERY_S = 1.0
KILL_BIT = 1 << (signal.SIGKILL - 1)
THREADS_MAX = 64
"""So many calls may hang at a time before those that should not do so as well. libfuse has 10 unless told otherwise."""


@dataclass(slots=True)
class Rule:
    """The calls that fail: by name, and by a part of the path. `times` counts down; None is always."""

    call: str
    number: int
    times: int | None
    path_contains: str

    def takes(self, call: str, path: str) -> bool:
        return self.call == call and self.path_contains in path and self.times != 0


@dataclass(slots=True)
class Faults:
    """The orders as they hold now. `lock` protects all fields: libfuse calls from many threads."""

    rules: list[Rule] = field(default_factory=list[Rule])
    hanging: dict[str, threading.Event] = field(default_factory=dict[str, threading.Event])
    calls: Counter[str] = field(default_factory=Counter[str])
    failed: Counter[str] = field(default_factory=Counter[str])
    quota_bytes: int | None = None
    shown_available: int | None = None
    read_only: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def meet(self, call: str, path: str) -> None:
        """Hang or fail as ordered; return if the call is to be done."""
        with self.lock:
            self.calls[call] += 1
            hanging = self.hanging.get(call)
        if hanging is not None:
            hanging.wait()
        with self.lock:
            if self.read_only and call in CHANGES:
                self._fail(call, errno.EROFS)
            for rule in self.rules:
                if rule.takes(call, path):
                    rule.times = rule.times - 1 if rule.times is not None else None
                    self._fail(call, rule.number)

    def meet_quota(self, used: int, size: int) -> None:
        """Refuse a write that would pass the quota."""
        with self.lock:
            if self.quota_bytes is not None and used + size > self.quota_bytes:
                self._fail("write", errno.EDQUOT)

    def _fail(self, call: str, number: int) -> None:
        self.failed[call] += 1
        raise OSError(number, os.strerror(number))

    # The orders. Each is called by name with the arguments that were sent.

    def fail(self, call: str, number: int, times: int | None, path_contains: str) -> None:
        with self.lock:
            self.rules.append(Rule(call, number, times, path_contains))

    def hang(self, call: str) -> None:
        with self.lock:
            self.hanging.setdefault(call, threading.Event())

    def quota(self, size_bytes: int | None) -> None:
        with self.lock:
            self.quota_bytes = size_bytes

    def statvfs(self, available: int | None) -> None:
        with self.lock:
            self.shown_available = available

    def make_read_only(self, yes: bool) -> None:
        with self.lock:
            self.read_only = yes

    def counts(self) -> dict[str, dict[str, int]]:
        with self.lock:
            return {"calls": dict(self.calls), "failed": dict(self.failed)}

    def heal(self) -> None:
        with self.lock:
            self.rules.clear()
            self.quota_bytes, self.shown_available, self.read_only = None, None, False
            for event in self.hanging.values():
                event.set()
            self.hanging.clear()


class Files:
    """The operations of libfuse, on the files of `folder`. A method is there under the name that libfuse has for it.

    Handles are descriptors of the real files. Paths of open files are those that they were opened by. One that was unlinked
    can be read, written and cut by who has it open; fstat of it fails with ESTALE, as the kernel asks for a path.
    """

    flag_nopath = True
    flag_nullpath_ok = True
    use_ns = True

    def __init__(self, folder: str, faults: Faults, mounted: threading.Event) -> None:
        self._folder = folder
        self._faults = faults
        self._mounted = mounted
        self._paths: dict[int, str] = {}

    def init(self, path: str) -> None:
        self._mounted.set()

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, int]:
        status = os.fstat(fh) if fh is not None and path is None else os.lstat(self._real(path or "/"))
        keys = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_blocks", "st_ino")
        times = {f"st_{name}time": getattr(status, f"st_{name}time_ns") for name in "amc"}
        return {key: getattr(status, key) for key in keys} | times

    def readdir(self, path: str | None, fh: int) -> list[str]:
        self._meet("readdir", path, fh)
        return [".", "..", *os.listdir(fh)]

    def opendir(self, path: str) -> int:
        return self._kept(path, os.open(self._real(path), os.O_RDONLY | os.O_DIRECTORY))

    def releasedir(self, path: str | None, fh: int) -> None:
        self.release(path, fh)

    def open(self, path: str, flags: int) -> int:
        self._faults.meet("open", path)
        if flags & WRITING_FLAGS:
            self._faults.meet("open for writing", path)
        # The kernel says where to write, and O_APPEND would not listen.
        return self._kept(path, os.open(self._real(path), flags & ~os.O_APPEND))

    def create(self, path: str, mode: int, flags: int) -> int:
        self._faults.meet("open", path)
        self._faults.meet("open for writing", path)
        return self._kept(path, os.open(self._real(path), (flags | os.O_CREAT) & ~os.O_APPEND, mode))

    def release(self, path: str | None, fh: int) -> None:
        self._paths.pop(fh, None)
        os.close(fh)

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        self._meet("read", path, fh)
        return os.pread(fh, size, offset)

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        self._meet("write", path, fh)
        room = os.fstatvfs(fh)
        self._faults.meet_quota((room.f_blocks - room.f_bfree) * room.f_frsize, len(data))
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> None:
        self._meet("truncate", path, fh)
        if fh is not None:
            os.ftruncate(fh, length)
        else:
            os.truncate(self._real(path or "/"), length)

    def fallocate(self, path: str | None, mode: int, offset: int, size: int, fh: int) -> None:
        self._meet("allocate", path, fh)
        if mode:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.posix_fallocate(fh, offset, size)

    def fsync(self, path: str | None, datasync: int, fh: int) -> None:
        self._meet("fsync", path, fh)
        (os.fdatasync if datasync else os.fsync)(fh)

    def fsyncdir(self, path: str | None, datasync: int, fh: int) -> None:
        self.fsync(path, datasync, fh)

    def unlink(self, path: str) -> None:
        self._faults.meet("unlink", path)
        os.unlink(self._real(path))

    def rename(self, old: str, new: str) -> None:
        self._faults.meet("rename", old)
        os.rename(self._real(old), self._real(new))

    def mkdir(self, path: str, mode: int) -> None:
        self._faults.meet("mkdir", path)
        os.mkdir(self._real(path), mode)

    def rmdir(self, path: str) -> None:
        self._faults.meet("rmdir", path)
        os.rmdir(self._real(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._real(path), mode)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self._real(path), ns=times or (time.time_ns(), time.time_ns()))

    def statfs(self, path: str) -> dict[str, int]:
        self._faults.meet("statvfs", path)
        found = os.statvfs(self._folder)
        keys = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_namemax")
        answer = {key: getattr(found, key) for key in keys}
        if (shown := self._faults.shown_available) is not None:
            blocks = shown // found.f_frsize
            answer |= {"f_bavail": blocks, "f_bfree": blocks, "f_blocks": max(found.f_blocks, 2 * blocks)}
        return answer

    def _meet(self, call: str, path: str | None, fh: int | None) -> None:
        self._faults.meet(call, path or self._paths.get(-1 if fh is None else fh, ""))

    def _real(self, path: str) -> str:
        return self._folder + path

    def _kept(self, path: str, descriptor: int) -> int:
        self._paths[descriptor] = path
        return descriptor


def serve(fuse: Any, files: Files, mount_point: str) -> None:  # noqa: ANN401 - mfusepy has no types
    """Mount and serve until it is unmounted."""

    def truncate(_: object, path: bytes | None, length: int, info: Any) -> None:  # noqa: ANN401 - a pointer of ctypes
        files.truncate(None if path is None else os.fsdecode(path), length, info.contents.fh if info else None)

    # The method of mfusepy passes no handle, and with `flag_nopath` there is no path either.
    mount = type("Mount", (fuse.FUSE,), {"truncate_fuse_3": truncate})
    options: dict[str, Any] = {"fsname": "outlast-faulty", "hard_remove": True}
    if os.geteuid() == 0:
        options["allow_other"] = True
    if (fuse.fuse_version_major, fuse.fuse_version_minor) >= (3, 12):
        options["max_threads"] = THREADS_MAX
    mount(files, mount_point, foreground=True, **options)


def obey(faults: Faults, mounted: threading.Event) -> None:
    """Answer "ready" when it is mounted, then each order; end the process with its input, whatever hangs."""
    owner = os.getppid()
    mounted.wait()
    os.write(1, b'"ready"\n')
    while True:
        asked, _, _ = select.select([0], [], [], OWNER_EVERY_S)
        # The owner sends an order and waits for its answer: there is never a part of one, nor a second.
        line = os.read(0, 1 << 16) if asked else b""
        if line:
            order, *arguments = json.loads(line)
            os.write(1, json.dumps(getattr(faults, order)(*arguments)).encode() + b"\n")
        elif asked or was_killed(owner):
            os._exit(0)


def was_killed(pid: int) -> bool:
    """Return whether a process is gone, or waits for nothing but the end of a call to end by SIGKILL."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    except OSError:
        return True
    return status["State"].startswith(("Z", "X")) or any(int(status[key], 16) & KILL_BIT for key in ("SigPnd", "ShdPnd"))


def main() -> None:
    """Serve the folder of the first argument at the mount point of the second."""
    faults, mounted = Faults(), threading.Event()
    # A mode that was asked for has met the mask of its process already.
    os.umask(0)
    threading.Thread(target=obey, args=(faults, mounted), daemon=True).start()
    serve(importlib.import_module("mfusepy"), Files(sys.argv[1], faults, mounted), sys.argv[2])


if __name__ == "__main__":
    main()
