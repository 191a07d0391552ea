"""The engine of one stream: what it acknowledges is there, what it refuses is not."""

from __future__ import annotations

from log_rig import Rig, one

from outlast.streams._model import Appended, Entry, Producer


def test_records_are_read_as_they_were_appended() -> None:
    rig = Rig()
    assert rig.log.append([Entry([b"a", b""]), one(b"b")], 5) == [Appended(0, 2), Appended(2, 3)]
    chunk = rig.log.read(0)
    assert (chunk.first, chunk.next, chunk.records, chunk.times_us) == (0, 3, [b"a", b"", b"b"], [5, 5, 5])
    assert rig.log.read(2).records == [b"b"]
    assert rig.log.read(3).records == []


def test_an_append_is_one_write_and_one_sync() -> None:
    rig = Rig()
    rig.log.append([one()], 1)
    rig.files.calls.clear()
    rig.log.append([one(), one(producer=Producer("p", 0, 0)), Entry([b"a", b"b"], headers=[b"x", b"y"])], 2)
    assert rig.files.calls == {"write": 1, "sync_data": 1}


def test_what_was_appended_is_there_after_a_crash_and_so_are_its_producers() -> None:
    rig = Rig()
    rig.log.append([one(b"a", producer=Producer("p", 0, 0))], 1)
    rig.power_cut()
    assert rig.log.append([one(b"a", producer=Producer("p", 0, 0)), one(b"b", producer=Producer("p", 0, 1))], 2) == [
        Appended(0, 1, duplicate=True),
        Appended(1, 2),
    ]
    assert rig.records() == [b"a", b"b"]
