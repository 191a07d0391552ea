"""Defects planted on purpose, to show that the simulation sees. Nothing of this is ever in `src`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fake_files import FakeFiles
from outlast.streams._format import batches, frames
from outlast.streams._log import Log, recovery
from outlast.streams._producers import Producers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from outlast.streams._format.meta import Meta
    from outlast.streams._log import Shared
    from outlast.streams._model import Entry

    Patch = Callable[[Any, str, Any], None]


def no_folder_sync_at_roll(patch: Patch) -> None:
    """The name of a new segment is not durable when it is written to."""
    sync_folder = FakeFiles.sync_folder

    def lazy(self: FakeFiles, folder: Any, /) -> None:
        if sum(name.endswith(".log") for name in self.names(folder)) < 2:
            sync_folder(self, folder)

    patch(FakeFiles, "sync_folder", lazy)


def no_cut_after_a_short_write(patch: Patch) -> None:
    """What a full disk took of an append stays behind the last one."""
    patch(FakeFiles, "truncate", lambda self, descriptor, size, /: None)


def acknowledged_before_the_sync(patch: Patch) -> None:
    """An append is acknowledged and served when it is written."""
    sync_data = FakeFiles.sync_data

    def lazy(self: FakeFiles, descriptor: int, /) -> None:
        if not self._opened[descriptor].path.endswith(".log"):
            sync_data(self, descriptor)

    patch(FakeFiles, "sync_data", lazy)


def recovered_without_a_sync(patch: Patch) -> None:
    """What an earlier process wrote is served as it is found, be it on disk or in memory only."""
    sync = FakeFiles.sync

    def lazy(self: FakeFiles, descriptor: int, /) -> None:
        if not self._opened[descriptor].path.endswith(".log"):
            sync(self, descriptor)

    patch(FakeFiles, "sync", lazy)


def producers_not_in_the_batch(patch: Patch) -> None:
    """Who has stored what is known in memory, and in the header of the next segment."""
    patch(batches.Batch, "stored", lambda self: [])


def producers_not_in_the_header(patch: Patch) -> None:
    """A new segment begins with no producers."""
    patch(Producers, "states", lambda self: ())


def refused_and_remembered(patch: Patch) -> None:
    """The producers of an append that was refused are not taken back."""
    patch(Producers, "roll_back", Producers.commit)


def deleted_without_a_folder_sync(patch: Patch) -> None:
    """The new name of a deleted stream's meta is not durable when the deletion is acknowledged."""
    sync_folder = FakeFiles.sync_folder

    def lazy(self: FakeFiles, folder: Any, /) -> None:
        if "gone" not in self.names(folder):
            sync_folder(self, folder)

    patch(FakeFiles, "sync_folder", lazy)


def closed_until_the_next_start(patch: Patch) -> None:
    """That a batch closes the stream is not read again."""
    patch(batches.Batch, "closes", False)


def closed_although_refused(patch: Patch) -> None:
    """An append that is to close the stream closes it before it is stored."""
    store = Log._store

    def hasty(self: Log, entries: Any, now_us: int) -> bool:
        if entries[-1].closes:
            self.meta = replace(self.meta, is_closed=True)
            self.view = replace(self.view, closed=True)
        return store(self, entries, now_us)

    patch(Log, "_store", hasty)


def created_before_its_records(patch: Patch) -> None:
    """A stream is there before its first records are."""
    create = Log.create

    def two_steps(folder: Path, meta: Meta, shared: Shared, first: Entry | None = None) -> Log:
        log = create(folder, replace(meta, is_closed=False), shared)
        if first is not None:
            log.append([first], meta.created_us)
        if meta.is_closed:
            log.close()
        return log

    patch(Log, "create", two_steps)


def labels_without_a_sync(patch: Patch) -> None:
    """A change of `meta` is acknowledged when it is written."""
    sync_data = FakeFiles.sync_data

    def lazy(self: FakeFiles, descriptor: int, /) -> None:
        if not self._opened[descriptor].path.endswith("meta"):
            sync_data(self, descriptor)

    patch(FakeFiles, "sync_data", lazy)


def damage_is_cut_off(patch: Patch) -> None:
    """Whatever does not read in the last segment is taken for a torn tail."""
    patch(recovery, "is_torn_tail", lambda *_, **__: True)


def no_checksum(patch: Patch) -> None:
    """A frame whose length fits is believed."""
    patch(batches, "extend", lambda crc, data: 0)
    patch(frames, "extend", lambda crc, data: 0)


MUTANTS: Final = {
    mutant.__name__: mutant
    for mutant in (
        no_folder_sync_at_roll,
        no_cut_after_a_short_write,
        acknowledged_before_the_sync,
        recovered_without_a_sync,
        producers_not_in_the_batch,
        producers_not_in_the_header,
        refused_and_remembered,
        deleted_without_a_folder_sync,
        closed_until_the_next_start,
        closed_although_refused,
        created_before_its_records,
        labels_without_a_sync,
        damage_is_cut_off,
        no_checksum,
    )
}
