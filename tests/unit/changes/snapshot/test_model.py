"""What a restart keeps of an initial snapshot, and how a row of it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_progress import MemoryProgress
from psycopg import sql

from outlast import ConfigurationError
from outlast.changes._decoding.messages import Column, Relation, ReplicaIdentity
from outlast.changes._snapshot.copy_text import parse_line
from outlast.changes._snapshot.model import RangeState, SnapshotState, Source, TableState, carried_over
from outlast.changes._snapshot.plan import PublishedRows
from outlast.changes._snapshot.reader import Snapshot
from outlast.postgres import Postgres
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from outlast.changes._snapshot.copy_text import Row

FIRST, SECOND = Source(100, "first"), Source(200, "second")


def table(*ranges: RangeState, key: tuple[str, ...] = ("id",)) -> TableState:
    return TableState("public", "orders", key, 10, ranges)


def read(number: int, source: Source | None, *, done: bool = False) -> RangeState:
    state = RangeState(number)
    return RangeState(number, done=done) if source is None else RangeState(number, done=done).began(source) if state else state


@pytest.mark.parametrize("mixable", [True, False])
def test_what_a_restart_keeps(*, mixable: bool) -> None:
    whole = table(read(0, FIRST, done=True), read(1, FIRST, done=True))
    untouched, half = table(read(0, None), read(1, None)), table(read(0, FIRST, done=True), read(1, None))
    assert carried_over(whole, ("id",), mixable=mixable), "what is done is done"
    assert carried_over(untouched, ("id",), mixable=mixable)
    assert carried_over(half, ("id",), mixable=mixable) == mixable
    assert not carried_over(whole, ("id", "shop"), mixable=mixable), "another key cuts other ranges"


@pytest.mark.parametrize("mixable", [True, False])
def test_a_table_without_a_key_goes_on_nowhere(*, mixable: bool) -> None:
    assert not carried_over(table(read(0, FIRST), key=()), (), mixable=mixable)
    assert carried_over(table(read(0, FIRST, done=True), key=()), (), mixable=mixable)
    assert carried_over(table(read(0, None), key=()), (), mixable=mixable)


def test_what_the_stream_leaves_out_and_from_where_the_copy_is_right() -> None:
    one = table(read(0, FIRST, done=True), read(1, FIRST, done=True))
    assert (one.skip_until_lsn, one.consistent_lsn) == (100, 100)
    two = table(read(0, FIRST, done=True), read(1, SECOND, done=True))
    assert (two.skip_until_lsn, two.consistent_lsn) == (0, 200)
    within = table(read(0, FIRST).began(Source(300, "third")))
    assert (within.skip_until_lsn, within.consistent_lsn) == (0, 300), "one range under two snapshots"
    later = table(read(0, SECOND, done=True))
    assert (later.skip_until_lsn, later.consistent_lsn) == (200, 200)


def test_a_table_is_done_when_all_its_ranges_are() -> None:
    state = table(read(0, FIRST, done=True), read(1, FIRST))
    assert (state.begun, state.done, state.rows) == (True, False, 0)
    state = state.with_range(state.ranges[1].advanced(7, ("5",)))
    assert (state.rows, state.ranges[1].position) == (7, ("5",))
    assert not table(read(0, None)).begun


def escaped(value: str | None) -> bytes:
    """COPY's text format, as its manual page describes it."""
    if value is None:
        return rb"\N"
    for char, text in {"\\": r"\\", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}.items():
        value = value.replace(char, text)
    return value.encode()


VALUES = (
    st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.sampled_from(["\\N", "\\", ""])
)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_any_row_comes_back(values: list[str | None]) -> None:
    line = b"\t".join(map(escaped, values)) + b"\n"
    row: Row = parse_line(line)
    assert row == tuple(values)


COLUMNS = (Column("id", 23, -1, is_key=True), Column('odd "name', 25, -1, is_key=True), Column("note", 25, -1, is_key=False))
RELATION = Relation(1, "public", "a b", ReplicaIdentity.DEFAULT, COLUMNS)


def test_the_statement_that_reads_a_range() -> None:
    rows = PublishedRows(RELATION, "(note <> '{}'::text)", ("id", 'odd "name'), ("integer", "text"), 1000)
    state = RangeState(0, ("1", "it's"), ("9", "z"))
    assert rows.copy(state).as_string(None) == (
        'COPY (SELECT "id", "odd ""name", "note" FROM ONLY "public"."a b" WHERE ("id", "odd ""name") > '
        "('1'::integer, 'it''s'::text) AND (\"id\", \"odd \"\"name\") <= ('9'::integer, 'z'::text) "
        'AND ((note <> \'{}\'::text)) ORDER BY "id", "odd ""name") TO STDOUT'
    )
    assert "'5'::integer, 'k'::text) AND" in rows.copy(state.advanced(3, ("5", "k"))).as_string(None)
    whole = PublishedRows(RELATION, None, (), (), 1000).copy(RangeState(0))
    assert isinstance(whole, sql.Composed)
    assert whole.as_string(None) == 'COPY (SELECT "id", "odd ""name", "note" FROM ONLY "public"."a b") TO STDOUT'


def test_progress_in_memory() -> None:
    async def main() -> None:
        progress = MemoryProgress()
        assert await progress.load("shop") is None
        first = table(RangeState(0, None, ("5",)), RangeState(1, ("5",), None))
        await progress.replace("shop", SnapshotState(7, (first,)))
        moved = first.ranges[1].began(FIRST).advanced(3, ("8",))
        await progress.save("shop", first, moved)
        assert await progress.load("shop") == SnapshotState(7, (first.with_range(moved),))
        await progress.forget("shop")
        await progress.forget("shop")
        assert await progress.load("shop") is None

    run_virtual(main)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"workers": 65}, {"batch_rows": 0}, {"ranges_max": 0}, {"batch_bytes": -1}])
def test_bounds_that_cannot_work(wrong: dict[str, Any]) -> None:
    sink: Any = object()
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} must be between 1 and"):
        Snapshot(Postgres("postgresql://localhost/x"), "pub", stream="shop", into=sink, progress=MemoryProgress(), **wrong)
