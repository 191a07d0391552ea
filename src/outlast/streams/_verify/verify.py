"""Checking, and mending, all streams of a volume."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError
from outlast.extend import LOCAL_FILES
from outlast.streams._format.names import GONE_NAME, META_NAME, parse_folder_name
from outlast.streams._log.folders import NEW_NAME
from outlast.streams._model import NAME_BYTES_MAX
from outlast.streams._verify.mend import Mender
from outlast.streams._verify.report import Finding, Report
from outlast.streams._verify.survey import Survey, Surveyor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.extend import FileSystem

LOCK_NAME: Final = "outlast-streams.lock"
STREAMS_NAME: Final = "streams"


def verify(path: str | os.PathLike[str], *, repair: bool = False, files: FileSystem = LOCAL_FILES) -> Report:
    """Read every byte of the streams in a folder, and return what is wrong; with `repair` mend what can be mended.

    It may block for the disk as long as it takes to read all. Without `repair` it changes nothing, and may be used while a
    process holds the streams: then each stream that has findings is read once more, and only what is found twice counts.

    A repair holds the streams. It never removes a segment or a stream. Indexes are made again. A `meta` is restored from its
    other slot, or from the headers of segments: of records that were trimmed since the newest of those was made, some may be
    back, and a stream that was closed is open. A folder without a `meta` is adopted. A torn tail is cut off. Damaged bytes are
    copied into a file `*.damaged` beside the segment, and the records behind them into a segment of their own: all keep their
    positions, and a reader is told of the hole. A second repair finds nothing, but for what has no repair. It needs the room
    of the segments that it makes.

    Raises `FileNotFoundError` when there is no such folder, `ConfigurationError` when a repair finds it held, and `OSError`
    when the folder itself cannot be read. What cannot be read or repaired of one stream is a finding, and the others go on.
    """
    root = Path(path)
    names = files.names(root)
    folder = f"{root}/{STREAMS_NAME}"
    held = _Held(root, files, repair=repair)
    try:
        surveys: list[Survey] = []
        if STREAMS_NAME in names:
            surveys = list(_look(folder, files, is_running=held.by_another))
            _tell_apart(surveys)
        findings: list[Finding] = []
        for survey in surveys:
            findings += _mend(survey, files) if repair else survey.findings
        return Report(
            str(root),
            tuple(findings),
            len(surveys),
            sum(len(survey.parts) for survey in surveys),
            sum(survey.records for survey in surveys),
            sum(part.size for survey in surveys for part in survey.parts),
            held.by_another,
        )
    finally:
        held.close()


class _Held:
    """The lock of a volume. A repair holds it; a check has it for the moment of a call, to see whether it is held."""

    __slots__ = ("_descriptor", "_files", "by_another")

    def __init__(self, root: Path, files: FileSystem, *, repair: bool) -> None:
        self._files = files
        self._descriptor: int | None = None
        self.by_another = False
        try:
            descriptor = files.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT if repair else os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            files.lock(descriptor)
        except BlockingIOError as error:
            files.close(descriptor)
            if repair:
                msg = f"the streams in {root} are in use by another process: stop it, then repair them"
                raise ConfigurationError(msg) from error
            self.by_another = True
            return
        except BaseException:
            files.close(descriptor)
            raise
        if repair:
            self._descriptor = descriptor
        else:
            files.close(descriptor)

    def close(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            self._files.close(self._descriptor)


def _look(folder: str, files: FileSystem, *, is_running: bool) -> Iterator[Survey]:
    for name in sorted(files.names(folder)):
        stream_id = parse_folder_name(name)
        if stream_id is None:
            continue
        path = f"{folder}/{name}"
        try:
            inside = files.names(path)
            if not inside or (META_NAME not in inside and (GONE_NAME in inside or NEW_NAME in inside)):
                # Deleted, or never made: what is left of it goes at the next start.
                continue
            survey = Surveyor(path, stream_id, files, is_running=is_running).look()
            if is_running and survey.findings:
                again = Surveyor(path, stream_id, files, is_running=is_running).look()
                survey.findings = [finding for finding in survey.findings if finding in again.findings]
        except FileNotFoundError:
            if not is_running:
                raise
            continue
        yield survey


def _tell_apart(surveys: list[Survey]) -> None:
    """Find streams of one name: the newest keeps it, and the others get one that has their id in it."""
    newest: dict[str, Survey] = {}
    for survey in sorted(surveys, key=lambda each: each.meta.created_us, reverse=True):
        if newest.setdefault(survey.meta.name, survey) is not survey and not survey.is_beyond_repair:
            name = f"{survey.meta.name} {survey.id:016x}"
            if len(name.encode()) > NAME_BYTES_MAX:
                name = f"found {survey.id:016x}"
            survey.find(META_NAME, survey.meta.oldest, "a newer stream has the same name", f"it is called {name!r} from now on")
            survey.meta, survey.is_changed = replace(survey.meta, name=name), True


def _mend(survey: Survey, files: FileSystem) -> list[Finding]:
    if not survey.findings or survey.is_beyond_repair:
        return survey.findings
    try:
        Mender(survey, files).mend()
    except OSError as error:
        survey.find(META_NAME, survey.meta.oldest, f"the repair was not ended: {error.strerror or error}", "")
        return survey.findings
    return [replace(finding, is_repaired=bool(finding.repair)) for finding in survey.findings]
