"""Labels, and a close that stands in a batch: what a check and a repair make of them, and their version of the format."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from verify_rig import OPTIONS, Volume, folder_of, record

from outlast.streams._errors import OutcomeUnknownError
from outlast.streams._format.frames import FIRST_VERSION, MAGIC, VERSION
from outlast.streams._format.meta import META_BYTES, Meta
from outlast.streams._log import Log
from outlast.streams._model import Appended, Entry, Producer

LABELS = {"content-type": "text/plain"}
RETRY = Producer("c", 0, 0)


def volume(*, labels: dict[str, str] | None = None, records: int = 10, closes: bool = True) -> Volume:
    """A volume with one stream; if it is closed, by a batch without records."""
    made = Volume({f"{folder_of(1).rpartition('/')[0]}": None})
    log = Log.create(Path(folder_of(1)), Meta(1, "orders", 1, OPTIONS, labels=labels or {}), made.shared())
    made.fill(log, records)
    if closes:
        assert log.append([Entry((), producer=RETRY, closes=True)], 5000) == [Appended(records, records)]
    return made


def versions(made: Volume) -> set[int]:
    """The versions of all frames, found by their magic: the records have none."""
    found = set[int]()
    for data in made.tree().values():
        at = -1 if data is None else data.find(MAGIC)
        while at >= 0 and data is not None:
            found.add(data[at + 13])
            at = data.find(MAGIC, at + 1)
    return found


def test_a_stream_that_says_nothing_new_is_one_of_the_first_format() -> None:
    plain = volume(closes=False, records=60)
    assert versions(plain) == {FIRST_VERSION}
    log = plain.recover(1)
    log.close()
    assert versions(plain) == {FIRST_VERSION}
    log.label(LABELS)
    assert versions(plain) == {FIRST_VERSION, VERSION}
    log.label({})
    assert versions(plain) == {FIRST_VERSION}
    assert versions(volume()) == {FIRST_VERSION, VERSION}


def test_a_stream_that_a_batch_has_closed_is_whole_and_stays_so_after_each_repair() -> None:
    made = volume(labels=LABELS)
    assert made.verify().is_healthy
    for path in ("meta", made.names(1, ".log")[0]):
        made.files.flip(f"{folder_of(1)}/{path}", 100)
        assert not made.verify(repair=True).is_healthy
        assert made.verify().is_healthy
        log = made.recover(1)
        assert (log.view.closed, log.view.tail, dict(log.meta.labels)) == (True, 10, LABELS)
        assert log.append([Entry((), producer=RETRY, closes=True)], 6000) == [Appended(10, 10, duplicate=True)]


def test_a_meta_that_is_restored_has_the_labels_of_the_last_header_and_says_closed() -> None:
    made = volume(labels=LABELS, records=40)
    made.files.put(f"{folder_of(1)}/meta", bytes(META_BYTES))
    assert [finding.segment for finding in made.verify(repair=True).findings] == ["meta"]
    assert made.verify().is_healthy
    meta = made.recover(1).meta
    assert (meta.is_closed, dict(meta.labels), meta.name) == (True, LABELS, "orders")


def test_damage_in_the_batch_that_closes_opens_the_stream_and_loses_no_record() -> None:
    made = volume()
    log = made.recover(1)
    made.files.flip(f"{folder_of(1)}/{made.names(1, '.log')[-1]}", 8 * (log.view.end - 5))
    assert [finding.repair for finding in made.verify(repair=True).findings] == ["they are cut off"]
    log = made.recover(1)
    assert (log.view.closed, log.view.tail) == (False, 10)
    assert made.records(log) == {at: record(1, at) for at in range(10)}


def test_damage_before_the_batch_that_closes_leaves_the_stream_closed() -> None:
    made = volume()
    log = made.recover(1)
    made.files.flip(f"{folder_of(1)}/{made.names(1, '.log')[-1]}", 8 * (log.view.end - 200))
    assert made.recover(1).view.closed
    assert not made.verify(repair=True).is_healthy
    assert made.verify().is_healthy
    log = made.recover(1)
    assert (log.view.closed, log.view.tail) == (True, 10)


@pytest.mark.parametrize("before_the_trim", [True, False])
def test_a_trim_that_a_crash_cut_short_leaves_a_closed_stream_closed(before_the_trim: bool) -> None:  # noqa: FBT001
    """All is trimmed of a closed stream, so it goes on in a new segment; the old one is there until `meta` says otherwise."""
    made = volume(closes=False)
    log = made.recover(1)
    log.append([Entry([bytes(100_000)])], 3000)
    log.append([Entry((), producer=RETRY, closes=True)], 5000)
    if before_the_trim:
        log._roll(6000)
        assert len(made.names(1, ".log")) > 1
    else:
        log.trim(11)
    made.files.crash()
    assert made.verify().is_healthy
    log = made.recover(1)
    assert (log.view.closed, log.view.tail) == (True, 11)
    assert log.append([Entry((), producer=RETRY, closes=True)], 7000) == [Appended(11, 11, duplicate=True)]
    assert len(made.records(log)) == (11 if before_the_trim else 0)


def test_a_close_that_was_written_and_taken_back_is_none_for_a_check_either() -> None:
    """It could not be cut off: it lies behind the end of its segment, at the position where the next one begins."""
    made = volume(closes=False)
    log = made.recover(1)
    made.files.fail("sync_data", errno.EIO)
    made.files.fail("truncate", errno.EIO)
    with pytest.raises(OutcomeUnknownError):
        log.append([Entry((), producer=RETRY, closes=True)], 5000)
    log.append([Entry([b"more"])], 6000)
    assert len(made.names(1, ".log")) == 2
    assert made.verify().is_healthy
    log = made.recover(1)
    assert (log.view.closed, log.view.tail) == (False, 11)
    assert len(log.producers) == 1
