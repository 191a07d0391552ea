"""The journal: what is written is read again, whatever was torn; its bounds; a disk that fails."""

from __future__ import annotations

import errno
import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlast
from outlast._files.journal import framed, read
from outlast.extend import Journal, JournalFullError
from outlast.jobs._journal import Entry, decode, encode, outcomes_journal
from outlast.jobs._model import Outcome
from outlast.jobs._refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

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
    result_json=st.none() | JSON.map(json.dumps),
    fault=st.none() | st.fixed_dictionaries({"kind": st.just("bug"), "reason": st.text(max_size=40)}),
    delay_s=st.floats(0, 1e6),
    give_back=st.booleans(),
)
ENTRIES = st.lists(st.tuples(st.uuids().map(str), OUTCOMES), max_size=6)


HEADER = b"outlast journal 1 jobs 2\n"
SAMPLE = Path(__file__).parent / "journal_format_0"


@given(ENTRIES)
def test_what_is_encoded_is_decoded_again(entries: list[Entry]) -> None:
    assert [decode(encode(each)) for each in entries] == entries


def old_line(fields: dict[str, Any]) -> bytes:
    """A line of the format that had no header."""
    body = json.dumps(fields).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def test_a_record_that_is_no_outcome_costs_none_of_those_behind_it() -> None:
    good = framed(encode(entry(1))), framed(encode(entry(2)))
    bad = [
        b"not a line\n",
        framed(b"{}"),
        framed(b'{"worker": "w"}'),
        framed(b'{"worker": "w", "id": "1", "attempt": 1, "state": "done"}'),
        framed(b'{"worker": "w", "id": 1, "attempt": 1, "state": "lost"}'),
    ]
    found = read(good[0] + b"".join(bad) + good[1], len(good[0]), decode)
    assert found == ([entry(2)], bad, b"")


def test_the_lines_of_the_version_before_are_read() -> None:
    fields = {"worker": "w", "id": 1, "attempt": 1, "state": "done", "fault": None, "delay_s": 0.0, "give_back": False}
    data = b"".join(old_line({**fields, "result": result}) for result in (None, {"n": 1}, [float("nan")]))
    found = read(data, 0, decode)
    assert [outcome.result_json for _, outcome in found.records] == [None, '{"n": 1}', "[NaN]"]
    assert found.damaged == []


def entry(number: int) -> Entry:
    return "worker", Outcome(number, 1, "done", result_json=f'{{"number": {number}}}')


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal[Entry]]:
    journal = outcomes_journal(tmp_path / "deep" / "journal", records_max=5, bytes_max=10_000)
    journal.open()
    yield journal
    journal.close()


def reopened(journal: Journal[Entry]) -> Journal[Entry]:
    journal.close()
    again = outcomes_journal(journal.path)
    again.open()
    again.close()
    return again


def test_entries_outlive_the_process_and_are_dropped_from_the_front(journal: Journal[Entry]) -> None:
    journal.append([entry(1), entry(2)])
    journal.append([entry(3)])
    journal.drop(1)
    journal.append([entry(4)])
    assert [outcome.id for _, outcome in reopened(journal).records] == [2, 3, 4]


def test_dropping_all_empties_the_file(journal: Journal[Entry]) -> None:
    journal.append([entry(1), entry(2)])
    journal.drop(2)
    assert journal.path.read_bytes() == b""
    journal.append([entry(3)])
    assert [outcome.id for _, outcome in reopened(journal).records] == [3]


def test_its_bounds_hold(journal: Journal[Entry]) -> None:
    journal.append([entry(number) for number in range(5)])
    with pytest.raises(JournalFullError, match="5 of 5 records"):
        journal.append([entry(6)])
    journal.drop(5)
    with pytest.raises(JournalFullError, match="of 10000 bytes"):
        journal.append([("worker", Outcome(1, 1, "done", result_json="x" * 20_000))])
    assert reopened(journal).records == []


def test_a_torn_tail_is_cut_off_and_counted(journal: Journal[Entry]) -> None:
    journal.append([entry(1)])
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b"0123")
    again = reopened(journal)
    assert (len(again.records), again.torn_bytes) == (1, 4)
    assert journal.path.read_bytes() == HEADER + framed(encode(entry(1)))


def test_a_write_that_fails_halfway_leaves_nothing(journal: Journal[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert journal.path.read_bytes() == HEADER + framed(encode(entry(1)))
    journal.append([entry(3)])
    assert [outcome.id for _, outcome in reopened(journal).records] == [1, 3]


def test_foreign_lines_are_handed_over_and_go_with_the_next_drop(journal: Journal[Entry]) -> None:
    journal.append([entry(1)])
    journal.close()
    journal.path.write_bytes(HEADER + b"foreign\n" + framed(encode(entry(1))) + b"damaged\n" + b"torn")
    again = outcomes_journal(journal.path)
    again.open()
    assert (again.damaged, again.torn_bytes, again.records) == ([b"foreign\n", b"damaged\n"], 4, [entry(1)])
    again.append([entry(2)])
    again.drop(0)
    again.close()
    assert again.path.read_bytes() == HEADER + framed(encode(entry(1))) + framed(encode(entry(2)))


def test_one_that_is_too_large_keeps_no_other_out(journal: Journal[Entry]) -> None:
    large = "worker", Outcome(9, 1, "done", result_json="x" * 20_000)
    assert journal.fitting([entry(1), large, entry(2)]) == ([entry(1), entry(2)], [large])
    journal.append([entry(number) for number in range(4)])
    assert journal.fitting([entry(5), entry(6)]) == ([entry(5)], [entry(6)])


def test_some_in_the_middle_may_stay(journal: Journal[Entry]) -> None:
    journal.append([entry(number) for number in range(5)])
    journal.keep_only({1, 3})
    journal.append([entry(6)])
    assert [outcome.id for _, outcome in reopened(journal).records] == [1, 3, 6]


def test_two_journals_of_one_stem_do_not_meet(tmp_path: Path) -> None:
    first, second = outcomes_journal(tmp_path / "shop.1"), outcomes_journal(tmp_path / "shop.2")
    for journal in (first, second):
        journal.open()
        journal.append([entry(1), entry(2)])
        (tmp_path / "shop.new").mkdir(exist_ok=True)
        journal.drop(1)
        assert [outcome.id for _, outcome in reopened(journal).records] == [2]


def test_what_is_refused_is_kept_within_a_bound(tmp_path: Path) -> None:
    refusals = Refusals(tmp_path / "journal.refused", bytes_max=600)
    fault = outlast.Fault(outlast.Kind.REJECTED, "22P02", "no json", "db")
    where = [refusals.keep(entry(number), fault) for number in range(3)]
    assert ["is kept in" in each for each in where] == [True, True, False]
    assert "is full (600 bytes); move it away" in where[2]
    assert (refusals.kept, refusals.lost) == (2, 1)
    assert refusals.path.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line[9:])["refused"]["code"] for line in refusals.path.read_bytes().splitlines()] == ["22P02"] * 2
    refusals.path.unlink()
    refusals.path.mkdir()
    assert "could not be written" in refusals.keep(entry(4), fault)


def test_one_process_holds_it(journal: Journal[Entry]) -> None:
    with pytest.raises(outlast.ConfigurationError, match="held by another process"):
        outcomes_journal(journal.path).open()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(outlast.ConfigurationError, match="give another path"):
        outcomes_journal(tmp_path / "file" / "journal").open()


def test_the_journal_of_an_upgraded_process_is_not_lost(tmp_path: Path) -> None:
    """The sample was written before there was a header: a line of version 1, four of version 2, and a torn end."""
    path = tmp_path / "journal"
    path.write_bytes(SAMPLE.read_bytes())
    journal = outcomes_journal(path)
    journal.open()
    assert [(outcome.id, outcome.state, outcome.result_json) for _, outcome in journal.records] == [
        (40, "done", "[1, 2]"),
        (41, "done", '{"sent": true}'),
        (42, "dead", None),
        (43, "available", None),
        (44, "available", None),
    ]
    assert journal.records[2][1].fault == {"kind": "rejected", "code": "422", "reason": "café closed"}
    assert (journal.records[3][1].delay_s, journal.records[4][1].give_back) == (12.5, True)
    assert (journal.torn_bytes, journal.damaged) == (70, [])
    journal.append([entry(45)])
    assert path.read_bytes().startswith(HEADER)
    assert reopened(journal).records == journal.records
