"""A mirror of a mirror: what streams and their sinks note for themselves stays where it is, whatever the streams are called."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from changes_source import LOGICAL, ask, insert, running, source_database, streams, until

import outlast
from outlast.changes import JsonLinesSink, OwnerPolicy, PostgresSink
from outlast.postgres import Postgres
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunAsync
    from outlast.changes import Changes

ROWS = "SELECT id, name, amount FROM item ORDER BY id"
THEIRS = "CREATE SCHEMA theirs; CREATE TABLE theirs.change_positions (stream text PRIMARY KEY, lsn text)"


@pytest.fixture(scope="module")
def logical() -> Iterator[PostgresServer]:
    with PostgresServer(settings=LOGICAL) as server:
        yield server


@pytest.fixture
def three(logical: PostgresServer) -> Iterator[list[str]]:
    """Three databases of one server, with the same tables; one is called like one of ours, and is not."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(source_database(logical)) for _ in range(3)]
        for dsn in found:
            ask(dsn, THEIRS)
        yield found


def mirror(dsn: str, schema: str) -> PostgresSink:
    return PostgresSink(Postgres(dsn, name="sink"), schema=schema)


def same(one: str, other: str) -> bool:
    theirs = "SELECT stream, lsn FROM theirs.change_positions ORDER BY 1"
    return all(ask(one, query) == ask(other, query) for query in (ROWS, theirs))


@pytest.mark.parametrize("schema", ["outlast", "of the mirror"])
def test_a_cascade_of_one_name_keeps_each_position(three: list[str], tmp_path: Path, run_async: RunAsync, schema: str) -> None:
    """A to B to C, and behind B a file. Each hop goes on where it stood after it was stopped, so its position was its own."""
    first, second, third = three
    file = tmp_path / "changes.jsonl"

    async def hop(number: int) -> None:
        """Insert one row at the beginning of the cascade, and see it at the end."""
        async with contextlib.AsyncExitStack() as stack:
            last = await stack.enter_async_context(running(second, mirror(third, schema), slot="to_third"))
            lines = await stack.enter_async_context(
                running(second, JsonLinesSink(file), slot="to_file", name="file", owner=OwnerPolicy(schema=schema))
            )
            await until(lambda: lines.link.state.value == last.link.state.value == "serving")
            hops = [last, lines, await stack.enter_async_context(running(first, mirror(second, schema), slot="to_second"))]
            await until(lambda: hops[2].link.state.value == "serving")
            await insert(first, number)
            ask(first, "INSERT INTO theirs.change_positions VALUES (%s, 'theirs')", (f"shop {number}",))
            await until(lambda: same(first, second) and same(first, third) and all(each.received >= 2 for each in hops))
            await until(lambda: f"shop {number}" in file.read_text())
            assert [each.received for each in hops] == [2, 2, 2], "not more, not twice"
            assert [each.link.incident.book.incidents for each in hops] == [0, 0, 0]

    for number in range(3):
        run_async(lambda number=number: hop(number))  # type: ignore[misc]
    positions = [ask(dsn, f'SELECT stream FROM "{schema}".change_positions') for dsn in (second, third)]
    assert positions == [[("shop",)], [("shop",)]]
    assert f"{schema}.change" not in file.read_text()


def test_being_fenced_without_end_is_told_once_with_what_to_do(three: list[str], run_async: RunAsync, expected_logs: Any) -> None:
    """The epochs of the source were put back by a restore; what the hint says puts it right."""
    expected_logs(r"^ERROR outlast: link changes shop: .*fenced 3 times in a row, with the lock in hand")
    source, sink, _ = three

    async def main() -> None:
        async with running(source, mirror(sink, "outlast")):
            await streams(source)
            await insert(source, 1)
            await until(lambda: same(source, sink))
        ask(sink, "UPDATE outlast.change_positions SET epoch = 1000")
        quick = outlast.Backoff(base_s=0.05, cap_s=0.1)
        async with running(source, mirror(sink, "outlast"), owner=OwnerPolicy(backoff=quick)) as changes:
            await insert(source, 2)
            await until(lambda: any(fault.kind is outlast.Kind.PERMANENT for fault in faults(changes)))
            (fault,) = [fault for fault in faults(changes) if fault.kind is outlast.Kind.PERMANENT]
            put_right = fault.hint.partition("on the source, ")[2]
            ask(source, put_right)
            await until(lambda: same(source, sink))

    run_async(main)


def faults(changes: Changes) -> list[outlast.Fault]:
    return [seen.fault for seen in changes.link.incident.book.distinct.values()]
