"""A disk in memory that runs full, tears, lies, fails, hangs and loses what was not synced: an `outlast.extend.FileSystem`.

    files = FakeFiles(random.Random(seed), capacity_bytes=1 << 20)
    files.make_folder("/disk")
    files.fail("sync_data", errno.EIO)          # the next one
    files.fill()                                # a neighbour takes what is left
    files.die_after(12)                         # the process ends at the 12th call from now: `Died`, a BaseException
    files.crash()                               # a new process: descriptors and locks are gone, what was written is there
    files.power_cut()                           # the same, and of what was not synced the generator keeps what it likes
    files.heal()                                # no faults any more, and the neighbour is gone

Three things are checked on the way, and raise `AssertionError`: a descriptor is synced after a sync of it has failed, is
written in place although it has O_APPEND, or is closed twice.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from fake_disk import File, Folder, Node, check_name, find, parts, walk
from fake_faults import Died, Failure, Faults, Hang, error_of
from outlast.extend import Room

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    StrPath = str | os.PathLike[str]
    Buffer = bytes | bytearray | memoryview

__all__ = ["Died", "FakeFiles", "Hang"]

PROCESS: Final = 1_000_000
"""Descriptors of the n-th process begin at n times this: what a dead one forgot to close is nobody else's."""


@dataclass(slots=True)
class Opened:
    file: File
    path: str
    flags: int
    offset: int = 0
    sync_failed: bool = False


class FakeFiles:
    """One disk. For any thread. Without a generator nothing is left to chance: a power cut takes all that was not synced."""

    def __init__(
        self,
        rng: Random | None = None,
        *,
        capacity_bytes: int = 1 << 40,
        inodes: int | None = None,
        descriptors_max: int = 1024,
    ) -> None:
        self.rng = rng
        self.capacity_bytes = capacity_bytes
        self.inodes = inodes
        self.descriptors_max = descriptors_max
        self.refuses_with = errno.ENOSPC
        self.lies = False
        """Whether a sync reports success and does nothing."""
        self.short_writes = 0.0
        """The share of writes of which only a part is taken."""
        self.frees_late = False
        """Whether the room of what is unlinked is free only after `settle`."""
        self.calls: Counter[str] = Counter()
        self.opened_most = 0
        """The most descriptors that were open at once."""
        self._root = Folder()
        self._opened: dict[int, Opened] = {}
        self._process = 1
        self._used = self._neighbour = self._late = 0
        self._nodes = 1
        self._faults = Faults()
        # Around each look at the tree. Never while a call hangs.
        self._lock = threading.RLock()

    # What a test does to the disk.

    def fail(self, call: str, number: int, *, times: float = 1, after: int = 0, path: str | None = None) -> Failure:
        """Let `times` calls fail, after so many that do not. `path` is a pattern as of a shell, for the whole path."""
        with self._lock:
            failure = Failure(call, number, times, after, path)
            self._faults.failures.append(failure)
            return failure

    def hang(self, call: str, *, path: str | None = None) -> Hang:
        with self._lock:
            hang = Hang(call, path)
            self._faults.hangs.append(hang)
            return hang

    def fill(self, size: int | None = None) -> None:
        """Let a neighbour write so much, or all that is left."""
        with self._lock:
            self._neighbour += self.available_bytes if size is None else size

    def free(self, size: int | None = None) -> None:
        with self._lock:
            self._neighbour = 0 if size is None else max(0, self._neighbour - size)

    def settle(self) -> None:
        """Let what was unlinked be free at last."""
        with self._lock:
            self._late = 0

    def lie(self) -> None:
        self.lies = True

    def die_after(self, calls: int) -> None:
        with self._lock:
            self._faults.calls_left = calls

    def heal(self) -> None:
        with self._lock:
            self._faults.clear()
            self.lies, self.short_writes, self._neighbour, self._late = False, 0.0, 0, 0

    def crash(self) -> None:
        """End the process: what was written can be read by the next one, synced or not."""
        with self._lock:
            files = {opened.file for opened in self._opened.values()}
            self._opened.clear()
            for file in files:
                file.opened, file.locked_by = 0, None
                self._release(file)
            self._process += 1
            self._faults.is_dead, self._faults.calls_left = False, None

    def power_cut(self) -> None:
        """End the process and lose, tear or keep what was not synced."""
        with self._lock:
            self.crash()
            seen = set[Node]()
            self._root.power_cut(self.rng or _Nothing(), seen)
            self._used = sum(node.allocated for node in seen if isinstance(node, File))
            self._nodes = 1 + len(seen)
            self._late = 0

    def flip(self, path: StrPath, bit: int) -> None:
        """Turn one bit of a file over, on the disk as in memory."""
        with self._lock:
            file = self._file(path)
            file.sync()
            for image in (file.content, file.durable):
                image[bit // 8] ^= 1 << bit % 8

    def make_folder(self, path: StrPath) -> None:
        """Make a folder and those above it, durably."""
        with self._lock:
            folder = self._root
            for name in parts(path):
                if name not in folder.names:
                    folder.change({name: Folder()})
                    self._nodes += 1
                folder.sync()
                node = folder.names[name]
                assert isinstance(node, Folder)
                folder = node

    def put(self, path: StrPath, data: bytes) -> None:
        """Make a file with this content, or give it to one, durably, as another program would."""
        with self._lock:
            folder, name = self._place(path)
            file = folder.names.get(name)
            if file is None:
                file = File(0o600, links=1)
                folder.change({name: file})
                folder.sync()
                self._nodes += 1
            assert isinstance(file, File)
            file.change(0, None)
            file.change(0, data)
            file.sync()
            self._grow(file, len(data) - file.allocated)

    def read(self, path: StrPath) -> bytes:
        with self._lock:
            return bytes(self._file(path).content)

    def tree(self, path: StrPath = "/") -> dict[str, bytes | None]:
        """Return all files below with their content; a folder's is None."""
        with self._lock:
            return dict(walk(self._folder(path), os.fspath(path).rstrip("/")))

    @property
    def available_bytes(self) -> int:
        return max(0, self.capacity_bytes - self._used - self._neighbour - self._late)

    @property
    def opened(self) -> int:
        return len(self._opened)

    # The port.

    def open(self, path: StrPath, flags: int, mode: int = 0o600, /) -> int:
        with self._call("open", path):
            if len(self._opened) >= self.descriptors_max:
                raise error_of(errno.EMFILE, path)
            folder, name = self._place(path)
            node = folder.names.get(name)
            if node is None:
                if not flags & os.O_CREAT:
                    raise error_of(errno.ENOENT, path)
                node = File(mode, links=1)
                self._add(folder, name, node, path)
            elif flags & os.O_CREAT and flags & os.O_EXCL:
                raise error_of(errno.EEXIST, path)
            if not isinstance(node, File):
                raise error_of(errno.EISDIR, path)
            if flags & os.O_TRUNC:
                self._cut(node, 0)
            node.opened += 1
            first = self._process * PROCESS
            number = next(number for number in range(first, first + PROCESS) if number not in self._opened)
            self._opened[number] = Opened(node, os.fspath(path), flags)
            self.opened_most = max(self.opened_most, len(self._opened))
            return number

    def close(self, descriptor: int, /) -> None:
        with self._lock:
            if descriptor // PROCESS < self._process or self._faults.is_dead:
                return
            self.calls["close"] += 1
            opened = self._opened.pop(descriptor, None)
            assert opened is not None, f"descriptor {descriptor} is closed twice"
            file = opened.file
            file.opened -= 1
            if file.locked_by == descriptor:
                file.locked_by = None
            self._release(file)

    def write(self, descriptor: int, pieces: Sequence[Buffer], /) -> int:
        with self._call("write", descriptor) as opened:
            at = len(opened.file.content) if opened.flags & os.O_APPEND else opened.offset
            done = self._write(opened, b"".join(pieces), at)
            opened.offset = at + done
            return done

    def write_at(self, descriptor: int, data: Buffer, at: int, /) -> int:
        with self._call("write_at", descriptor) as opened:
            assert not opened.flags & os.O_APPEND, f"{opened.path} is written in place by a descriptor with O_APPEND"
            return self._write(opened, bytes(data), at)

    def read_at(self, descriptor: int, size: int, at: int, /) -> bytes:
        with self._call("read_at", descriptor) as opened:
            return bytes(opened.file.content[at : at + size])

    def size(self, descriptor: int, /) -> int:
        with self._call("size", descriptor) as opened:
            return len(opened.file.content)

    def mode(self, descriptor: int, /) -> int:
        with self._call("mode", descriptor) as opened:
            return opened.file.mode

    def truncate(self, descriptor: int, size: int, /) -> None:
        with self._call("truncate", descriptor) as opened:
            self._cut(opened.file, size)

    def allocate(self, descriptor: int, size: int, /) -> None:
        with self._call("allocate", descriptor) as opened:
            growth = size - opened.file.allocated
            if growth > self.available_bytes:
                raise error_of(self.refuses_with, opened.path)
            if size > len(opened.file.content):
                opened.file.change(len(opened.file.content), bytes(size - len(opened.file.content)))
            self._grow(opened.file, max(0, growth))

    def sync(self, descriptor: int, /) -> None:
        self._sync("sync", descriptor)

    def sync_data(self, descriptor: int, /) -> None:
        self._sync("sync_data", descriptor)

    def rename(self, source: StrPath, target: StrPath, /) -> None:
        with self._call("rename", source, target):
            old, name = self._place(source)
            new, new_name = self._place(target)
            node = old.names.get(name)
            if node is None:
                raise error_of(errno.ENOENT, source)
            replaced = new.names.get(new_name)
            if isinstance(replaced, Folder) and (isinstance(node, File) or replaced.names):
                raise error_of(errno.EISDIR if isinstance(node, File) else errno.ENOTEMPTY, target)
            if old is new:
                old.change({name: None, new_name: node})
            else:
                kept = list[bool]()
                old.change({name: None}, kept)
                new.change({new_name: node}, kept)
            self._unlinked(replaced)

    def unlink(self, path: StrPath, /) -> None:
        with self._call("unlink", path):
            folder, name = self._place(path)
            file = self._file(path)
            folder.change({name: None})
            self._unlinked(file)

    def mkdir(self, path: StrPath, mode: int = 0o700, /) -> None:
        with self._call("mkdir", path):
            folder, name = self._place(path)
            if name in folder.names:
                raise error_of(errno.EEXIST, path)
            self._add(folder, name, Folder(), path)

    def rmdir(self, path: StrPath, /) -> None:
        with self._call("rmdir", path):
            folder, name = self._place(path)
            if self._folder(path).names:
                raise error_of(errno.ENOTEMPTY, path)
            folder.change({name: None})
            self._nodes -= 1

    def names(self, folder: StrPath, /) -> list[str]:
        with self._call("names", folder):
            found = list(self._folder(folder).names)
            if self.rng is not None:
                self.rng.shuffle(found)
            return found

    def sync_folder(self, folder: StrPath, /) -> None:
        with self._call("sync_folder", folder):
            found = self._folder(folder)
            if not self.lies:
                found.sync()

    def lock(self, descriptor: int, /) -> None:
        with self._call("lock", descriptor) as opened:
            if opened.file.locked_by not in {None, descriptor}:
                raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), opened.path)
            opened.file.locked_by = descriptor

    def room(self, path: StrPath, /) -> Room:
        with self._call("room", path):
            find(self._root, path)
            inodes = None if self.inodes is None else self.inodes - self._nodes
            return Room(self.available_bytes, inodes, self.capacity_bytes, self.inodes)

    # Inside. All of it under the lock.

    @contextmanager
    def _call(self, call: str, *subjects: StrPath | int) -> Generator[Opened]:
        """Let one call happen: later, halfway or not at all if that is its lot. Yields what the descriptor has open."""
        with self._lock:
            paths, opened = self._subjects(subjects)
            hanging = self._faults.hanging(call, paths)
        for hang in hanging:
            hang.stay()
        with self._lock:
            self._look_alive(subjects)
            self.calls[call] += 1
            self._faults.happen(call, paths, self.rng)
            yield opened
            if self._faults.is_dead:
                raise Died(call)

    def _subjects(self, subjects: tuple[StrPath | int, ...]) -> tuple[list[str], Opened]:
        self._look_alive(subjects)
        if isinstance(subjects[0], int):
            opened = self._opened[subjects[0]]
            return [opened.path], opened
        return [os.fspath(subject) for subject in subjects if not isinstance(subject, int)], Opened(File(0), "", 0)

    def _look_alive(self, subjects: tuple[StrPath | int, ...]) -> None:
        if self._faults.is_dead:
            raise Died
        if isinstance(subjects[0], int) and subjects[0] not in self._opened:
            raise error_of(errno.EBADF, str(subjects[0]))

    def _sync(self, call: str, descriptor: int) -> None:
        with self._lock:
            opened = self._opened.get(descriptor)
        assert opened is None or not opened.sync_failed, f"{opened.path}: a descriptor is synced again after a failure"
        try:
            with self._call(call, descriptor) as opened:
                if not self.lies:
                    opened.file.sync()
        except OSError:
            if opened is not None:
                with self._lock:
                    opened.sync_failed = True
                    opened.file.fail_to_sync(self.rng or _Nothing())
            raise

    def _write(self, opened: Opened, data: bytes, at: int) -> int:
        if opened.flags & os.O_ACCMODE == os.O_RDONLY:
            raise error_of(errno.EBADF, opened.path)
        if data and self.rng is not None and (self._faults.is_dead or self.rng.random() < self.short_writes):
            data = data[: self.rng.randint(0 if self._faults.is_dead else 1, len(data))]
        growth = max(0, at + len(data) - opened.file.allocated)
        missing = max(0, growth - self.available_bytes)
        if data and missing >= len(data):
            raise error_of(self.refuses_with, opened.path)
        data = data[: len(data) - missing]
        opened.file.change(at, data)
        self._grow(opened.file, growth - missing)
        return len(data)

    def _grow(self, file: File, growth: int) -> None:
        file.allocated += growth
        self._used += growth

    def _cut(self, file: File, size: int) -> None:
        file.change(size, None)
        self._grow(file, min(0, size - file.allocated))

    def _add(self, folder: Folder, name: str, node: Node, path: StrPath) -> None:
        if self.inodes is not None and self._nodes >= self.inodes:
            raise error_of(self.refuses_with, path)
        self._nodes += 1
        folder.change({name: node})

    def _unlinked(self, node: Node | None) -> None:
        if isinstance(node, File):
            node.links -= 1
            self._release(node)
        elif node is not None:
            self._nodes -= 1

    def _release(self, file: File) -> None:
        if not file.links and not file.opened:
            self._nodes -= 1
            self._used -= file.allocated
            self._late += file.allocated if self.frees_late else 0

    def _folder(self, path: StrPath) -> Folder:
        node = find(self._root, path)
        if not isinstance(node, Folder):
            raise error_of(errno.ENOTDIR, path)
        return node

    def _file(self, path: StrPath) -> File:
        node = find(self._root, path)
        if not isinstance(node, File):
            raise error_of(errno.EISDIR, path)
        return node

    def _place(self, path: StrPath) -> tuple[Folder, str]:
        """Return the folder that has the name, or would have it."""
        parent, name = os.path.split(str(path))
        check_name(name, path)
        return self._folder(parent), name


class _Nothing(Random):
    """Draws the first of everything: nothing that was not synced survives."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        return 0
