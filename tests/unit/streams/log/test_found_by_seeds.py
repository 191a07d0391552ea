"""Faults that the simulation of streams has found, each by its shortest way."""

from __future__ import annotations

import errno
from dataclasses import replace
from random import Random

import pytest
from log_rig import Rig, one

from outlast.streams import StreamOptions
from outlast.streams._errors import DamagedError, OutcomeUnknownError
from outlast.streams._format.names import segment_name
from outlast.streams._log import meta_file

INTERVAL = StreamOptions(sync_every_s=1.0)


def refused_and_left_behind(rig: Rig, data: bytes) -> None:
    """An append whose sync fails, and which cannot be cut off either."""
    rig.files.fail("sync_data", errno.EIO)
    rig.files.fail("truncate", errno.EIO)
    with pytest.raises(OutcomeUnknownError):
        rig.log.append([one(data)], 2)


def test_what_was_refused_is_not_read_when_nothing_says_where_its_segment_ends() -> None:
    rig = Rig()
    rig.log.append([one(b"first")], 1)
    refused_and_left_behind(rig, b"refused")
    rig.log.append([one(b"second")], 3)
    # In the header of the next segment, which says where the data of this one ends.
    rig.files.flip(rig.folder / segment_name(1), 8 * 100)
    rig.crash()
    assert rig.records() == [b"first", b"second"]


def test_a_torn_end_that_was_cut_off_does_not_count_as_synced() -> None:
    rig = Rig(INTERVAL)
    rig.log.append([one(b"first")], 1)
    rig.log.sync()
    path = rig.folder / segment_name(0)
    whole = rig.files.read(path)
    rig.log.append([one(b"second")], 2)
    rig.files.put(path, whole.ljust(len(rig.files.read(path)), b"?"))
    rig.crash()
    rig.log.append([one(b"second")], 2)
    rig.log.sync()
    rig.power_cut()
    assert rig.records() == [b"first", b"second"]


def test_a_reader_of_a_segment_that_is_missing_is_told_where_to_go_on() -> None:
    rig = Rig(StreamOptions(segment_bytes=4096))
    for number in range(3):
        rig.log.append([one(b"%d" % number * 3000)], number)
    rig.log.release()
    rig.files.unlink(rig.folder / segment_name(0))
    rig.crash()
    with pytest.raises(DamagedError, match="is missing") as caught:
        rig.log.read(0)
    assert (caught.value.position, caught.value.next) == (0, 1)
    assert rig.records(1) == [b"1" * 3000, b"2" * 3000]


@pytest.mark.parametrize("slot", [0, 1])
def test_a_slot_of_meta_is_not_written_while_the_other_one_is_in_doubt(slot: int) -> None:
    """With a long name a slot takes several sectors, of which a failed sync writes some."""
    for seed in range(40):
        rig = Rig(rng=Random(seed), name="n" * 900)
        old = rig.log.meta
        rig.files.fail("sync_data", errno.EIO, times=2, after=slot)
        with pytest.raises(OSError, match="either may be found at the next start"):
            meta_file.update(rig.folder, old, replace(old, oldest=7, number=old.number + 1), rig.files)
        rig.files.power_cut()
        assert meta_file.read_meta(rig.folder, rig.files).oldest in {0, 7}
