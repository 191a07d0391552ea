"""The journal: what is written is read again whatever was torn or damaged; its formats, its bounds."""

from __future__ import annotations

import errno
import os
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import ConfigurationError
from outlast._files.journal import framed, read
from outlast.extend import Journal, JournalFullError, NewerFormatError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = b"outlast journal 1 test 1\n"
RECORDS = st.lists(st.binary(max_size=40) | st.text(max_size=20).map(str.encode), max_size=6)


def file_of(records: list[bytes]) -> bytes:
    return HEADER + b"".join(map(framed, records))


def made(path: Path, *, version: int = 1, records_max: int = 100, bytes_max: int = 10_000, name: str = "test") -> Journal[bytes]:
    return Journal(path, name, encode=bytes, decode=bytes, version=version, records_max=records_max, bytes_max=bytes_max)


def opened(path: Path, data: bytes) -> Journal[bytes]:
    path.write_bytes(data)
    journal = made(path)
    journal.open()
    return journal


@given(RECORDS)
def test_what_is_written_is_read_again(records: list[bytes]) -> None:
    assert read(file_of(records), len(HEADER), bytes) == (records, [], b"")


@given(RECORDS, st.data())
def test_a_torn_tail_costs_nothing_but_itself(records: list[bytes], data: st.DataObject) -> None:
    whole = file_of(records)
    cut = data.draw(st.integers(len(HEADER), len(whole)))
    found = read(whole[:cut], len(HEADER), bytes)
    complete = 0
    while len(file_of(records[: complete + 1])) <= cut and complete < len(records):
        complete += 1
    assert found == (records[:complete], [], whole[len(file_of(records[:complete])) : cut])


@given(RECORDS.filter(bool), st.data())
def test_a_flipped_byte_costs_its_own_record_only(records: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(file_of(records))
    at = data.draw(st.integers(len(HEADER), len(whole) - 1))
    hit = next(place for place in range(len(records)) if at < len(file_of(records[: place + 1])))
    whole[at] ^= data.draw(st.integers(1, 255))
    found = read(bytes(whole), len(HEADER), bytes)
    if found.records == records:
        assert (found.damaged, found.torn) == ([], b""), "the newline behind a record is for people only"
        return
    assert found.records == records[:hit] + records[hit + 1 :]
    assert b"".join([*found.damaged, found.torn]) == bytes(whole)[len(file_of(records[:hit])) : len(file_of(records[: hit + 1]))]
    assert not found.torn or hit == len(records) - 1, "what has whole records behind it is no torn tail"


@pytest.mark.parametrize("at", [3, 12, 20, 29])
def test_damage_in_the_middle_is_no_torn_tail(tmp_path: Path, at: int) -> None:
    """In the length, the checksum, the record."""
    data = bytearray(file_of([b"first record", b"second", b"third"]))
    data[len(HEADER) + at] ^= 2
    journal = opened(tmp_path / "file", bytes(data))
    assert (journal.records, journal.torn_bytes) == ([b"second", b"third"], 0)
    assert journal.damaged == [bytes(data[len(HEADER) : len(HEADER) + len(framed(b"first record"))])]
    assert journal.path.read_bytes() == data, "nothing is cut off"
    journal.append([b"fourth"])
    assert journal.path.read_bytes() == data + framed(b"fourth"), "an append does not destroy it"
    journal.drop(0)
    journal.close()
    assert journal.path.read_bytes() == file_of([b"second", b"third", b"fourth"])


def test_a_last_record_that_fails_its_checksum_is_damage(tmp_path: Path) -> None:
    """It was whole, so it may have been acknowledged: it is handed over and not cut off."""
    data = file_of([b"first", b"second"])[:-2] + b"?\n"
    journal = opened(tmp_path / "file", data)
    assert (journal.records, journal.damaged, journal.torn_bytes) == ([b"first"], [framed(b"second")[:-2] + b"?\n"], 0)
    journal.close()


def test_zeros_behind_the_last_record_are_a_torn_tail(tmp_path: Path) -> None:
    """Some file systems show them after a power cut: the size was written and the data was not."""
    journal = opened(tmp_path / "file", file_of([b"first"]) + bytes(100))
    assert (journal.records, journal.damaged, journal.torn_bytes) == ([b"first"], [], 100)
    journal.close()
    assert journal.path.read_bytes() == file_of([b"first"])


@pytest.mark.parametrize("cut", [1, 10, 24])
def test_a_torn_header_is_an_empty_journal(tmp_path: Path, cut: int) -> None:
    journal = opened(tmp_path / "file", HEADER[:cut])
    assert (journal.records, journal.torn_bytes) == ([], cut)
    journal.append([b"first"])
    journal.close()
    assert journal.path.read_bytes() == file_of([b"first"])


def test_records_under_a_damaged_header_are_read(tmp_path: Path) -> None:
    journal = opened(tmp_path / "file", b"?" + file_of([b"first", b"second"])[1:])
    assert (journal.records, journal.damaged) == ([b"first", b"second"], [b"?" + HEADER[1:]])
    journal.close()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            b"outlast journal 3 other-grammar\n",
            r"written in format 3, this version of Outlast reads up to 1: run the",
        ),
        (b"outlast journal 3 test 1 with more\n", r"written in format 3"),
        (b"outlast journal 1 test 2\n", r"written in records of version 2, this version of Outlast reads up to 1"),
    ],
)
def test_a_newer_format_is_refused_by_name_and_left_as_it_is(tmp_path: Path, header: bytes, message: str) -> None:
    data = header + b"what nobody here can read"
    with pytest.raises(NewerFormatError, match=message):
        opened(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data
    # It is not held either.
    with pytest.raises(NewerFormatError):
        made(tmp_path / "file").open()


def test_the_journal_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is the journal of 'jobs', not of 'test'; give another path"):
        opened(tmp_path / "file", b"outlast journal 1 jobs 1\n")


def test_a_file_without_a_header_is_read_and_rewritten_with_the_next_append(tmp_path: Path) -> None:
    old = b"".join(b"%08x %s\n" % (zlib.crc32(record), record) for record in (b"first", b"second"))
    journal = opened(tmp_path / "file", old + old[:12])
    assert (journal.records, journal.damaged, journal.torn_bytes) == ([b"first", b"second"], [], 12)
    assert journal.path.read_bytes() == old
    journal.append([b"third"])
    journal.close()
    assert journal.path.read_bytes() == file_of([b"first", b"second", b"third"])


def test_damage_in_an_old_file_outlives_its_rewrite(tmp_path: Path) -> None:
    old = b"%08x first\n" % zlib.crc32(b"first")
    journal = opened(tmp_path / "file", b"what is this\n" + old)
    journal.append([b"second"])
    journal.close()
    again = opened(tmp_path / "file", journal.path.read_bytes())
    assert (again.records, again.damaged) == ([b"first", b"second"], [b"what is this\n"])
    again.close()


def test_records_of_an_earlier_version_are_rewritten_with_the_next_append(tmp_path: Path) -> None:
    opened(tmp_path / "file", file_of([b"first"])).close()
    journal = made(tmp_path / "file", version=2)
    journal.open()
    journal.append([b"second"])
    journal.close()
    assert journal.path.read_bytes().startswith(b"outlast journal 1 test 2\n")
    with pytest.raises(NewerFormatError):
        made(tmp_path / "file").open()


def test_it_is_full_at_its_bounds_and_says_what_did_not_fit(tmp_path: Path) -> None:
    journal = made(tmp_path / "file", records_max=2, bytes_max=150)
    journal.open()
    journal.append([b"first"])
    with pytest.raises(JournalFullError, match="is full: 1 of 2 records, 49 of 150 bytes; 2 records of 48 bytes do not fit"):
        journal.append([b"large", b"large"])
    with pytest.raises(JournalFullError, match="1 records of 118 bytes do not fit"):
        journal.append([b"x" * 99])
    assert journal.fitting([b"x" * 99, b"second", b"third"]) == ([b"second"], [b"x" * 99, b"third"])
    journal.append([b"second"])
    journal.drop(2)
    assert (journal.records, journal.size_bytes) == ([], 0)
    journal.close()


def test_a_name_is_one_word(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a journal is named by 1 to 40 of a-z"):
        made(tmp_path / "file", name="two words")


def test_a_full_disk_keeps_nobody_from_reading_and_emptying_an_old_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start needs no room. The rewrite that an append needs is refused, and the old file stays as it was."""
    old = b"".join(b"%08x %s\n" % (zlib.crc32(record), record) for record in (b"first", b"second"))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_bytes(old)
    monkeypatch.setattr(os, "write", full)
    journal = made(tmp_path / "file")
    journal.open()
    with pytest.raises(OSError, match="No space left"):
        journal.append([b"third"])
    with pytest.raises(OSError, match="No space left"):
        journal.drop(1)
    assert (journal.records, journal.path.read_bytes()) == ([b"first", b"second"], old)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    journal.drop(2)
    assert (journal.records, journal.path.read_bytes()) == ([], b"")
    journal.close()
