"""What a fake disk holds: of each file what is written and what is durable, of each folder which names are.

What a power cut leaves of what was not synced, a generator decides. It is nastier than most file systems: a file's unsynced
sectors and its size are each of any moment since its last sync, and each unsynced name is kept or lost by itself.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fake_faults import error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

NAME_BYTES_MAX: Final = 255
SECTOR_BYTES: Final = 512
"""Bytes that a disk writes whole or not at all."""


@dataclass(slots=True, eq=False)
class File:
    mode: int
    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Since the last sync: writes (where, what) and cuts (size, None)."""
    allocated: int = 0
    links: int = 0
    opened: int = 0
    locked_by: int | None = None

    def change(self, at: int, data: bytes | None) -> None:
        _apply(self.content, at, data)
        self.pending.append((at, data))

    def sync(self) -> None:
        for at, data in self.pending:
            _apply(self.durable, at, data)
        self.pending.clear()

    def fail_to_sync(self, rng: Random) -> None:
        """Forget what was to be written, as Linux does: it can be read, some of it is on disk, the rest never will be."""
        self.durable = self._survivor(rng)
        self.pending.clear()

    def power_cut(self, rng: Random) -> None:
        self.content = self._survivor(rng)
        self.durable = bytearray(self.content)
        self.allocated = len(self.content)
        self.pending.clear()
        self.opened, self.locked_by = 0, None

    def _survivor(self, rng: Random) -> bytearray:
        last, touched = len(self.pending), self._touched()
        moments: list[Callable[[int], int]] = [
            lambda sector: 0,
            lambda sector: last,
            _torn(rng.randint(0, last), rng.choice(touched or [0]), last),
            lambda sector: rng.randint(0, last),
        ]
        moment = rng.choice(moments)
        due: dict[int, list[int]] = {}
        for sector in touched:
            due.setdefault(moment(sector), []).append(sector)
        size_at = max(due, default=0) if rng.random() < 0.5 else moment(len(self.content) // SECTOR_BYTES)
        image, size, kept = bytearray(self.durable), 0, dict[int, bytes]()
        for now in range(last + 1):
            if now:
                _apply(image, *self.pending[now - 1])
            for sector in due.get(now, ()):
                kept[sector] = bytes(image[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])
            if now == size_at:
                size = len(image)
        found = bytearray(self.durable[:size])
        found.extend(bytes(size - len(found)))
        for sector, data in kept.items():
            begin = sector * SECTOR_BYTES
            room = max(0, min(SECTOR_BYTES, size - begin))
            found[begin : begin + room] = data[:room].ljust(room, b"\0")
        return found

    def _touched(self) -> list[int]:
        touched, size = set[int](), len(self.durable)
        for at, data in self.pending:
            begin, end = (min(at, size), max(at, size)) if data is None else (min(at, size), at + len(data))
            size = at if data is None else max(size, end)
            touched.update(range(begin // SECTOR_BYTES, -(-end // SECTOR_BYTES)))
        return sorted(touched)


def _torn(moment: int, border: int, last: int) -> Callable[[int], int]:
    """All as it was at one moment, with the next change in the sectors below a border."""
    return lambda sector: min(last, moment + (sector < border))


def _apply(image: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del image[at:]
    image.extend(bytes(max(0, at - len(image))))
    if data is not None:
        image[at : at + len(data)] = data


@dataclass(slots=True, eq=False)
class Change:
    """Names of one folder that were set or taken away in one step; of two folders when a file moved, which share `kept`."""

    names: dict[str, Node | None]
    kept: list[bool] = field(default_factory=list)
    """Empty until it is decided: by a sync of the folder, or by a power cut."""


@dataclass(slots=True, eq=False)
class Folder:
    names: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def change(self, names: dict[str, Node | None], kept: list[bool] | None = None) -> None:
        change = Change(names, [] if kept is None else kept)
        _set(self.names, change)
        self.pending.append(change)

    def sync(self) -> None:
        for change in self.pending:
            change.kept[:] = [True]
            _set(self.durable, change)
        self.pending.clear()

    def power_cut(self, rng: Random, seen: set[Node]) -> None:
        """Decide what is left, here and below; `seen` collects the files that can still be reached."""
        share = rng.choice([0.0, 1.0, rng.random()])
        kept_first = rng.randint(0, len(self.pending)) if rng.random() < 0.3 else None
        for place, change in enumerate(self.pending):
            if not change.kept:
                change.kept.append(rng.random() < share if kept_first is None else place < kept_first)
            if change.kept[0]:
                _set(self.durable, change)
        self.pending.clear()
        self.names = dict(self.durable)
        for node in self.names.values():
            if isinstance(node, Folder):
                seen.add(node)
                node.power_cut(rng, seen)
            elif node in seen:
                node.links += 1
            else:
                seen.add(node)
                node.power_cut(rng)
                node.links = 1


Node = File | Folder


def _set(names: dict[str, Node], change: Change) -> None:
    for name, node in change.names.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def parts(path: str | os.PathLike[str]) -> list[str]:
    return [part for part in os.fspath(path).split("/") if part]


def check_name(name: str, path: str | os.PathLike[str]) -> None:
    if len(os.fsencode(name)) > NAME_BYTES_MAX:
        raise error_of(errno.ENAMETOOLONG, path)


def find(root: Folder, path: str | os.PathLike[str]) -> Node:
    node: Node = root
    for name in parts(path):
        if not isinstance(node, Folder):
            raise error_of(errno.ENOTDIR, path)
        check_name(name, path)
        if name not in node.names:
            raise error_of(errno.ENOENT, path)
        node = node.names[name]
    return node


def walk(folder: Folder, path: str) -> Iterator[tuple[str, bytes | None]]:
    for name, node in sorted(folder.names.items()):
        if isinstance(node, Folder):
            yield f"{path}/{name}", None
            yield from walk(node, f"{path}/{name}")
        else:
            yield f"{path}/{name}", bytes(node.content)
