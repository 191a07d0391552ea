"""A volume with two streams on a disk that fails on demand: to be damaged, checked and repaired."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fake_files import FakeFiles
from outlast.streams._errors import DamagedError
from outlast.streams._format.meta import Meta
from outlast.streams._format.names import folder_name
from outlast.streams._format.record_headers import encode_headers
from outlast.streams._log import Log, Shared
from outlast.streams._model import Entry, Producer, StreamOptions
from outlast.streams._verify import Report, verify

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from outlast.streams._errors import StreamError

ROOT = "/disk"
OPTIONS = StreamOptions(segment_bytes=4096)
NAMES = {1: "orders", 2: "payments"}
RECORDS = 100


def folder_of(stream_id: int) -> str:
    return f"{ROOT}/streams/{folder_name(stream_id)}"


def record(stream_id: int, position: int) -> bytes:
    return b"%d:%d:" % (stream_id, position) + bytes([65 + position % 26]) * 200


class Volume:
    """Streams whose batches have one to three records, each with its position in it; some have headers, some a producer."""

    def __init__(self, tree: Mapping[str, bytes | None] | None = None, rng: Random | None = None) -> None:
        """Begin with a copy of `tree`, or make the streams."""
        self.files, self.files_root = FakeFiles(rng), Path(ROOT) / "streams"
        self.files.make_folder(f"{ROOT}/streams")
        for path, data in (tree or {}).items():
            if data is None:
                self.files.make_folder(path)
            else:
                self.files.put(path, data)
        if tree is None:
            for stream_id, name in NAMES.items():
                self.fill(Log.create(Path(folder_of(stream_id)), Meta(stream_id, name, stream_id, OPTIONS), self.shared()))

    def fill(self, log: Log, upto: int = RECORDS) -> None:
        """Append until so many records are there."""
        while (tail := log.view.tail) < upto:
            count = min(1 + tail % 3, upto - tail)
            texts = [
                b"%d:%d:" % (log.meta.id, position) + bytes([65 + position % 26]) * 200 for position in range(tail, tail + count)
            ]
            sequence = log.producers.states()[0].sequence + 1 if len(log.producers) else 0
            producer = Producer("p", 0, sequence) if tail % 2 else None
            headers = [encode_headers({"n": str(tail)})] * count if tail % 5 == 0 else None
            log.append([Entry(texts, headers, producer)], 1000 + tail)

    def shared(self) -> Shared:
        """Begin as a new process; `reports` are what it was told of damage, and `notes` the lines it wrote besides."""
        self.reports: list[StreamError] = []
        self.notes: list[str] = []
        return Shared(files=self.files, report=self.reports.append, note=self.notes.append)

    def recover(self, stream_id: int) -> Log:
        return Log.recover(Path(folder_of(stream_id)), self.shared())

    def records(self, log: Log) -> dict[int, bytes]:
        """All records that can be read, by position; `reports` has the damage on the way."""
        position, records = log.view.oldest, {}
        while position < log.view.tail:
            try:
                chunk = log.read(position, 1)
            except DamagedError as error:
                self.reports.append(error)
                following = error.next or 0
            else:
                records.update(enumerate(chunk.records, chunk.first))
                following = chunk.next
            assert following > position
            position = following
        return records

    def verify(self, *, repair: bool = False) -> Report:
        return verify(ROOT, repair=repair, files=self.files)

    def tree(self) -> dict[str, bytes | None]:
        return self.files.tree(f"{ROOT}/streams")

    def names(self, stream_id: int, suffix: str = "") -> list[str]:
        return sorted(name for name in self.files.names(folder_of(stream_id)) if name.endswith(suffix))
