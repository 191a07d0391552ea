"""What a stream shows of itself: who owns it, where it stands, how the slot is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from changes_source import LOGICAL, Memory, insert, running, source_database, streams, until

from outlast.changes._shown import ShownChanges
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync
    from outlast.changes import Changes


@pytest.fixture
def source() -> Iterator[str]:
    with PostgresServer(settings=LOGICAL) as server, source_database(server) as dsn:
        yield dsn


def values(changes: Changes, name: str) -> dict[tuple[str, ...], float]:
    return next(dict(figure.samples) for figure in ShownChanges(changes).figures() if figure.name == name)


def test_an_owner_and_one_who_stands_by(source: str, run_async: RunAsync) -> None:
    async def scenario() -> None:
        sink = Memory()
        async with running(source, sink) as owner:
            await streams(source)
            await insert(source, 1, 2, 3)
            await until(lambda: values(owner, "delivered_transactions") == {(): 3})
            assert values(owner, "received_changes") == {(): 3}
            assert values(owner, "ownership")[("owner",)] == 1
            assert values(owner, "confirmed_lsn")[()] >= sink.complete
            shown = ShownChanges(owner)
            assert (shown.health().well, shown.health().state) == (True, "owner")
            async with running(source, Memory()) as other:
                await until(lambda: values(other, "ownership")[("waiting",)] == 1)
                assert (ShownChanges(other).health().well, ShownChanges(other).health().state) == (True, "standing by")
                assert ShownChanges(other).lag() is None, "it has not looked at the slot"
            await owner.monitor.sample()
            lag = shown.lag()
            assert lag is not None
            assert lag.size_bytes is not None
            assert lag.read_at is not None
            assert values(owner, "slot_state")[("ok",)] == 1
            assert values(owner, "retained")[()] >= 0

    run_async(scenario)


def test_a_stream_that_does_not_run_is_not_called_well(source: str, run_async: RunAsync) -> None:
    async def scenario() -> None:
        async with running(source, Memory()) as changes:
            await streams(source)
        health = ShownChanges(changes).health()
        assert (health.well, health.state) == (None, "not connected")

    run_async(scenario)
