"""A stream on a disk that fails on demand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fake_files import FakeFiles
from outlast.streams._errors import DamagedError
from outlast.streams._format.meta import Meta
from outlast.streams._format.names import folder_name
from outlast.streams._log import Log, Shared
from outlast.streams._model import Entry, Producer, StreamOptions

if TYPE_CHECKING:
    from random import Random

    from outlast.streams._errors import StreamError

ROOT = Path("/disk/streams")
ID = 0x5EED
OPTIONS = StreamOptions()


def one(data: bytes = b"x", producer: Producer | None = None, at: int | None = None) -> Entry:
    return Entry([data], producer=producer, at=at)


class Rig:
    log: Log

    def __init__(
        self,
        options: StreamOptions = OPTIONS,
        rng: Random | None = None,
        files: FakeFiles | None = None,
        *,
        name: str = "s",
        is_made: bool = True,
    ) -> None:
        self.files = files or FakeFiles(rng)
        self.files.make_folder(ROOT)
        self.folder = ROOT / folder_name(ID)
        self.meta = Meta(ID, name, 1, options)
        self.reports: list[StreamError] = []
        self.notes: list[str] = []
        self.shared = self.new_shared()
        if is_made:
            self.create()

    def create(self) -> None:
        self.log = Log.create(self.folder, self.meta, self.shared)

    def new_shared(self) -> Shared:
        return Shared(files=self.files, report=self.reports.append, note=self.notes.append)

    def power_cut(self) -> None:
        self.files.power_cut()
        self.recover()

    def crash(self) -> None:
        self.files.crash()
        self.recover()

    def recover(self) -> None:
        self.shared = self.new_shared()
        self.log = Log.recover(self.folder, self.shared)

    def records(self, start: int | None = None) -> list[bytes]:
        """All records, without those that are damaged."""
        position = self.log.view.oldest if start is None else start
        records: list[bytes] = []
        while position < self.log.view.tail:
            try:
                chunk = self.log.read(position)
            except DamagedError as error:
                following = error.next or 0
            else:
                assert chunk.first == position
                records += chunk.records
                following = chunk.next
            assert following > position
            position = following
        return records

    def segments(self) -> list[str]:
        return sorted(name for name in self.files.names(self.folder) if name.endswith(".log"))
