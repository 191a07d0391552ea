"""The journal: what is written is read again, whatever was torn; its bounds; a disk that fails."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlast
from outlast.jobs.journal import Journal, JournalFullError, decode, encode
from outlast.jobs.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OUTCOMES = st.builds(
    Outcome,
    id=st.integers(1, 2**62),
    attempt=st.integers(1, 1000),
    state=st.sampled_from(["done", "dead", "available"]),
    result=JSON,
    fault=st.none() | st.fixed_dictionaries({"kind": st.just("bug"), "reason": st.text(max_size=40)}),
    delay_s=st.floats(0, 1e6),
    give_back=st.booleans(),
)
ENTRIES = st.lists(st.tuples(st.uuids().map(str), OUTCOMES), max_size=6)


@given(ENTRIES)
def test_what_is_written_is_read_again(entries: list[tuple[str, Outcome]]) -> None:
    data = b"".join(encode(worker, outcome) for worker, outcome in entries)
    assert decode(data) == (entries, len(data))


@given(ENTRIES, st.data())
def test_a_torn_tail_costs_nothing_but_itself(entries: list[tuple[str, Outcome]], data: st.DataObject) -> None:
    lines = [encode(worker, outcome) for worker, outcome in entries]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    read, good = decode(whole[:cut] + data.draw(st.binary(max_size=8).filter(lambda junk: b"\n" not in junk)))
    complete = 0
    while complete < len(lines) and sum(map(len, lines[: complete + 1])) <= cut:
        complete += 1
    assert read == entries[:complete]
    assert good == sum(map(len, lines[:complete]))


@given(ENTRIES.filter(bool), st.data())
def test_a_flipped_byte_is_noticed(entries: list[tuple[str, Outcome]], data: st.DataObject) -> None:
    whole = bytearray(b"".join(encode(worker, outcome) for worker, outcome in entries))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    read, _ = decode(bytes(whole))
    assert read == entries[: len(read)], "what is read is what was written"


def entry(number: int) -> tuple[str, Outcome]:
    return "worker", Outcome(number, 1, "done", result={"number": number})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "deep" / "journal", entries_max=5, bytes_max=10_000)
    journal.open()
    yield journal
    journal.close()


def reopened(journal: Journal) -> Journal:
    journal.close()
    again = Journal(journal.path)
    again.open()
    again.close()
    return again


def test_entries_outlive_the_process_and_are_dropped_from_the_front(journal: Journal) -> None:
    journal.append([entry(1), entry(2)])
    journal.append([entry(3)])
    journal.drop(1)
    journal.append([entry(4)])
    assert [outcome.id for _, outcome in reopened(journal).entries] == [2, 3, 4]


def test_dropping_all_empties_the_file(journal: Journal) -> None:
    journal.append([entry(1), entry(2)])
    journal.drop(2)
    assert journal.path.read_bytes() == b""
    journal.append([entry(3)])
    assert [outcome.id for _, outcome in reopened(journal).entries] == [3]


def test_its_bounds_hold(journal: Journal) -> None:
    journal.append([entry(number) for number in range(5)])
    with pytest.raises(JournalFullError, match="5 of 5 entries"):
        journal.append([entry(6)])
    journal.drop(5)
    with pytest.raises(JournalFullError, match="of 10000 bytes"):
        journal.append([("worker", Outcome(1, 1, "done", result="x" * 20_000))])
    assert reopened(journal).entries == []


def test_a_torn_tail_is_cut_off_and_counted(journal: Journal) -> None:
    journal.append([entry(1)])
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b"0123")
    again = reopened(journal)
    assert (len(again.entries), again.torn_bytes) == (1, 4)
    assert journal.path.read_bytes() == encode(*entry(1))


def test_a_write_that_fails_halfway_leaves_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the end of a disk a write is short, and the next one fails."""
    journal.append([entry(1)])
    write, room = os.write, 30

    def scarce(file: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "no space left on device")
        written = write(file, data[:room])
        room -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", scarce)
        with pytest.raises(OSError, match="no space left"):
            journal.append([entry(2)])
    assert journal.path.read_bytes() == encode(*entry(1))
    journal.append([entry(3)])
    assert [outcome.id for _, outcome in reopened(journal).entries] == [1, 3]


def test_one_process_holds_it(journal: Journal) -> None:
    with pytest.raises(outlast.ConfigurationError, match="held by another process"):
        Journal(journal.path).open()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(outlast.ConfigurationError, match="give another journal_path"):
        Journal(tmp_path / "file" / "journal").open()
