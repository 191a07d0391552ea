"""The journal: what is written is read again, whatever was torn; its bounds; a disk that fails."""

from __future__ import annotations

import errno
import json
import os
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlast
from outlast.jobs._journal import Journal, JournalFullError, decode, encode
from outlast.jobs._model import Outcome
from outlast.jobs._refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
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


@given(ENTRIES)
def test_what_is_written_is_read_again(entries: list[tuple[str, Outcome]]) -> None:
    data = b"".join(encode(worker, outcome) for worker, outcome in entries)
    assert decode(data) == (entries, [], len(data))


@given(ENTRIES, st.data())
def test_a_torn_tail_costs_nothing_but_itself(entries: list[tuple[str, Outcome]], data: st.DataObject) -> None:
    lines = [encode(worker, outcome) for worker, outcome in entries]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    read, foreign, good = decode(whole[:cut] + data.draw(st.binary(max_size=8).filter(lambda junk: b"\n" not in junk)))
    complete = 0
    while complete < len(lines) and sum(map(len, lines[: complete + 1])) <= cut:
        complete += 1
    assert (read, foreign) == (entries[:complete], [])
    assert good == sum(map(len, lines[:complete]))


@given(ENTRIES.filter(bool), st.data())
def test_a_flipped_byte_is_noticed(entries: list[tuple[str, Outcome]], data: st.DataObject) -> None:
    whole = bytearray(b"".join(encode(worker, outcome) for worker, outcome in entries))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    read, foreign, _ = decode(bytes(whole))
    # A newline that is no more makes one line of two.
    assert len(entries) - 2 <= len(read)
    rest = iter(entries)
    assert all(entry in rest for entry in read), "what is read is what was written, in its order"
    assert all(line in bytes(whole) for line in foreign)


def old_line(fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def test_a_line_of_somebody_elses_costs_none_of_those_behind_it() -> None:
    good = encode(*entry(1)), encode(*entry(2))
    bad = [
        b"not a line",
        b"00000000 {}",
        old_line({"worker": "w"})[:-1],
        old_line({"worker": "w", "id": "1", "attempt": 1, "state": "done"})[:-1],
        old_line({"worker": "w", "id": 1, "attempt": 1, "state": "lost"})[:-1],
    ]
    data = good[0] + b"\n".join([*bad, good[1]])
    assert decode(data) == ([entry(1), entry(2)], bad, len(data))


def test_the_lines_of_the_version_before_are_read() -> None:
    fields = {"worker": "w", "id": 1, "attempt": 1, "state": "done", "fault": None, "delay_s": 0.0, "give_back": False}
    data = b"".join(old_line({**fields, "result": result}) for result in (None, {"n": 1}, [float("nan")]))
    entries, foreign, _ = decode(data)
    assert [outcome.result_json for _, outcome in entries] == [None, '{"n": 1}', "[NaN]"]
    assert foreign == []


def entry(number: int) -> tuple[str, Outcome]:
    return "worker", Outcome(number, 1, "done", result_json=f'{{"number": {number}}}')


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
        journal.append([("worker", Outcome(1, 1, "done", result_json="x" * 20_000))])
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


def test_foreign_lines_are_handed_over_and_go_with_the_next_drop(journal: Journal) -> None:
    journal.append([entry(1)])
    journal.close()
    journal.path.write_bytes(b"foreign\n" + encode(*entry(1)) + b"damaged\n" + b"torn")
    again = Journal(journal.path)
    again.open()
    assert (again.foreign, again.torn_bytes, again.entries) == ([b"foreign", b"damaged"], 4, [entry(1)])
    again.append([entry(2)])
    again.drop(0)
    again.close()
    assert again.path.read_bytes() == encode(*entry(1)) + encode(*entry(2))


def test_one_that_is_too_large_keeps_no_other_out(journal: Journal) -> None:
    large = "worker", Outcome(9, 1, "done", result_json="x" * 20_000)
    assert journal.fitting([entry(1), large, entry(2)]) == ([entry(1), entry(2)], [large])
    journal.append([entry(number) for number in range(4)])
    assert journal.fitting([entry(5), entry(6)]) == ([entry(5)], [entry(6)])


def test_some_in_the_middle_may_stay(journal: Journal) -> None:
    journal.append([entry(number) for number in range(5)])
    journal.keep_only({1, 3})
    journal.append([entry(6)])
    assert [outcome.id for _, outcome in reopened(journal).entries] == [1, 3, 6]


def test_two_journals_of_one_stem_do_not_meet(tmp_path: Path) -> None:
    first, second = Journal(tmp_path / "shop.1"), Journal(tmp_path / "shop.2")
    for journal in (first, second):
        journal.open()
        journal.append([entry(1), entry(2)])
        (tmp_path / "shop.new").mkdir(exist_ok=True)
        journal.drop(1)
        assert [outcome.id for _, outcome in reopened(journal).entries] == [2]


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


def test_one_process_holds_it(journal: Journal) -> None:
    with pytest.raises(outlast.ConfigurationError, match="held by another process"):
        Journal(journal.path).open()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(outlast.ConfigurationError, match="give another journal_path"):
        Journal(tmp_path / "file" / "journal").open()
