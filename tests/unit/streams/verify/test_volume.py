"""A whole volume: held by a process or not, streams that are deleted, lost or unreadable, disks that are full."""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import TYPE_CHECKING

import pytest
from verify_rig import NAMES, RECORDS, ROOT, Volume, folder_of, record

import outlast
from outlast.streams import Finding, verify
from outlast.streams._catalogue import look_over
from outlast.streams._consumers._codec import encode, parse
from outlast.streams._consumers._cursor import Event, EventKind
from outlast.streams._consumers._runs import Run
from outlast.streams._format.frames import UNSALTED, checksum, mark
from outlast.streams._format.meta import SLOT_BYTES

if TYPE_CHECKING:
    from pathlib import Path


@cache
def whole() -> dict[str, bytes | None]:
    return Volume().tree()


def hold(volume: Volume) -> None:
    files = volume.files
    files.lock(files.open(f"{ROOT}/outlast-streams.lock", os.O_RDWR | os.O_CREAT))


def cut_last(volume: Volume) -> None:
    name = f"{folder_of(1)}/{volume.names(1, '.log')[-1]}"
    volume.files.put(name, volume.files.read(name)[:-3])


def test_a_write_that_is_under_way_is_no_finding() -> None:
    volume = Volume(whole())
    cut_last(volume)
    assert [finding.repair for finding in volume.verify().findings] == ["they are cut off"]
    hold(volume)
    report = volume.verify()
    assert (report.is_healthy, report.is_running) == (True, True)


def test_damage_is_found_while_a_process_holds_the_streams_and_not_repaired() -> None:
    volume = Volume(whole())
    volume.files.flip(f"{folder_of(1)}/{volume.names(1, '.log')[1]}", -1)
    hold(volume)
    before = volume.tree()
    assert len(volume.verify().findings) == 1
    with pytest.raises(outlast.ConfigurationError, match="/disk are in use by another process: stop it, then repair them"):
        volume.verify(repair=True)
    assert volume.tree() == before


def test_a_repair_lets_go_of_the_streams() -> None:
    volume = Volume(whole())
    volume.verify(repair=True)
    hold(volume)
    assert volume.files.opened == 1


def test_what_was_deleted_or_never_made_is_no_finding() -> None:
    volume = Volume(whole())
    volume.files.rename(f"{folder_of(1)}/meta", f"{folder_of(1)}/gone")
    volume.files.rename(f"{folder_of(2)}/meta", f"{folder_of(2)}/new")
    volume.files.make_folder(f"{ROOT}/streams/lost+found")
    report = volume.verify(repair=True)
    assert (report.findings, report.streams) == ((), 0)


def test_a_folder_without_a_record_is_left_alone() -> None:
    volume = Volume(whole())
    # A power cut may bring back the folder of a stream that was deleted; the next start removes it.
    volume.files.make_folder(folder_of(3))
    assert volume.verify(repair=True).is_healthy
    volume.files.put(f"{folder_of(3)}/consumers", b"cursors")
    [finding] = volume.verify(repair=True).findings
    assert (finding.folder, finding.repair, finding.is_repaired) == ("0000000000000003", "", False)
    assert "the folder holds no record: remove it" in finding.what
    assert volume.names(3) == ["consumers"]


def test_what_a_crash_leaves_of_an_update_or_a_trim_is_no_finding() -> None:
    volume = Volume(whole())
    name = volume.names(1, ".idx")[0]
    data = volume.files.read(f"{folder_of(1)}/{name}")
    old = volume.files.read(f"{folder_of(1)}/meta")[SLOT_BYTES:]
    volume.recover(1).trim(RECORDS // 2)
    # The second slot was not written yet; and the name of an index is back that was removed.
    volume.files.put(f"{folder_of(1)}/meta", volume.files.read(f"{folder_of(1)}/meta")[:SLOT_BYTES] + old)
    volume.files.put(f"{folder_of(1)}/{name}", data)
    assert volume.verify().is_healthy


def test_damaged_cursors_are_set_aside_and_those_before_are_kept() -> None:
    volume = Volume(whole())
    events = [Event(EventKind.ACKNOWLEDGED, "billing", (Run(at, at + 1),), 0) for at in range(3)]
    data = encode(events[:2], 1) + encode(events[2:], 1, durable_to=len(encode(events[:2], 1)))
    volume.files.put(f"{folder_of(1)}/consumers", data)
    assert volume.verify().is_healthy
    second = len(encode(events[:1], 1))
    volume.files.flip(f"{folder_of(1)}/consumers", 8 * second + 200)
    wrong = volume.files.read(f"{folder_of(1)}/consumers")
    [finding] = volume.verify(repair=True).findings
    assert (finding.segment, finding.is_repaired) == ("consumers", True)
    assert f"do not read from offset {second} on" in finding.what
    assert parse(volume.files.read(f"{folder_of(1)}/consumers"), 1).events == events[:1]
    assert volume.files.read(f"{folder_of(1)}/consumers.damaged") == wrong
    assert volume.verify().is_healthy


def test_a_stream_without_segments_is_said_and_left_alone() -> None:
    volume = Volume(whole())
    for name in volume.names(1):
        if name != "meta":
            volume.files.unlink(f"{folder_of(1)}/{name}")
    [finding] = volume.verify(repair=True).findings
    assert (finding.stream, finding.repair) == ("orders", "")
    assert volume.names(1) == ["meta"]


def test_a_folder_that_lost_its_meta_is_kept_by_a_start_and_adopted_by_a_repair() -> None:
    for is_flipped in (False, True):
        volume = Volume(whole())
        if is_flipped:
            for slot in (0, 1):
                volume.files.flip(f"{folder_of(1)}/meta", 8 * SLOT_BYTES * slot + 100)
        else:
            volume.files.unlink(f"{folder_of(1)}/meta")
            volume.files.sync_folder(folder_of(1))
        before = volume.tree()
        for _ in range(2):
            found = look_over(volume.files_root, volume.files)
            assert [path.name for path, _ in found.unknown] == ["0000000000000001"]
            assert found.gone == []
            assert volume.tree() == before
        assert volume.verify(repair=True).findings
        assert sorted(meta.name for _, meta in look_over(volume.files_root, volume.files).streams) == sorted(NAMES.values())
        assert volume.records(volume.recover(1)) == {at: record(1, at) for at in range(RECORDS)}


def test_a_copy_under_another_name_is_said_and_left_alone() -> None:
    volume = Volume({path.replace(folder_of(2), folder_of(3)): data for path, data in whole().items()})
    before = volume.tree()
    findings = volume.verify(repair=True).findings
    assert {finding.folder for finding in findings} == {"0000000000000003"}
    assert {finding.repair for finding in findings} == {""}
    assert "of stream 0000000000000002: rename it, or remove it if that is a copy" in findings[-1].what
    assert volume.tree() == before


def test_of_two_streams_with_one_name_the_older_is_called_by_its_id() -> None:
    volume = Volume(whole())
    volume.files.put(f"{folder_of(2)}/meta", renamed(volume, 2, b'"payments"', b'"orders"  '))
    assert {finding.what for finding in volume.verify(repair=True).findings} == {"a newer stream has the same name"}
    names = [meta.name for _, meta in look_over(volume.files_root, volume.files).streams]
    assert sorted(names) == ["orders", "orders 0000000000000001"]
    assert volume.verify().is_healthy
    assert volume.records(volume.recover(1)) == {at: record(1, at) for at in range(RECORDS)}


def renamed(volume: Volume, stream_id: int, old: bytes, new: bytes) -> bytes:
    checked = volume.files.read(f"{folder_of(stream_id)}/meta")[8:SLOT_BYTES].replace(old, new)
    return (mark(checksum(checked, UNSALTED)) + checked) * 2


def test_a_stream_of_a_newer_format_is_said_and_left_alone() -> None:
    volume = Volume(whole())
    checked = bytearray(volume.files.read(f"{folder_of(1)}/meta")[8:SLOT_BYTES])
    checked[5] = 3
    volume.files.put(f"{folder_of(1)}/meta", (mark(checksum(bytes(checked), UNSALTED)) + bytes(checked)) * 2)
    before = volume.tree()
    [finding] = volume.verify(repair=True).findings
    assert "format 3" in finding.what
    assert (finding.repair, volume.tree()) == ("", before)


def test_a_file_that_cannot_be_read_is_a_finding_and_the_other_streams_go_on() -> None:
    volume = Volume(whole())
    volume.files.flip(f"{folder_of(2)}/{volume.names(2, '.log')[1]}", -1)
    volume.files.fail("read_at", errno.EIO, times=99, path=f"{folder_of(1)}/*.log")
    findings = volume.verify(repair=True).findings
    assert [(finding.stream, finding.is_repaired) for finding in findings] == [("orders", False), ("payments", True)]
    assert findings[0].what == "it cannot be read: Input/output error. Nothing of this stream is changed"


def test_a_repair_on_a_full_disk_says_so_and_loses_nothing() -> None:
    volume = Volume(whole())
    volume.files.flip(f"{folder_of(1)}/{volume.names(1, '.log')[1]}", 8 * 700)
    before = volume.records(volume.recover(1))
    volume.files.fill()
    findings = volume.verify(repair=True).findings
    assert findings[-1].what == "the repair was not ended: No space left on device"
    assert not any(finding.is_repaired for finding in findings)
    assert volume.records(volume.recover(1)) == before
    volume.files.heal()
    volume.verify(repair=True)
    assert volume.verify().is_healthy
    assert volume.records(volume.recover(1)) == before


def test_folders_without_streams(tmp_path: Path) -> None:
    report = verify(tmp_path)
    assert (report.is_healthy, report.streams, list(tmp_path.iterdir())) == (True, 0, [])
    assert verify(str(tmp_path), repair=True).is_healthy
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "nowhere")


def test_a_finding_is_a_line_for_a_person() -> None:
    volume = Volume(whole())
    volume.files.flip(f"{folder_of(1)}/{volume.names(1, '.log')[0]}", -1)
    [finding] = volume.verify().findings
    name, at = "00000000000000000000.log", finding.position
    begin = f"stream 'orders' (0000000000000001), {name}, position {at}: the checksum of a batch is wrong, at offset"
    assert str(finding).startswith(begin)
    assert str(finding).endswith("are lost; a repair: the stream goes on behind it, and the bytes are set aside")
    done = volume.verify(repair=True).findings[0]
    assert "; done: the stream goes on" in str(done)
    assert str(Finding("s", "f", "meta", 4, 4, "w", "")) == "stream 's' (f), meta, position 4: w"
