"""The counts of the greptime drill: what writers were told against what the data node has, and how a store grew."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from outlast._drill.greptime.datanode import DataNode
from outlast._drill.greptime.looks import grown_beyond, most_records
from outlast._drill.greptime.run import lost, percentile, served_percent
from outlast._drill.greptime.stores import Look
from outlast._drill.greptime.wire import DONE, PENDING, REFUSED
from outlast._drill.greptime.writers import BAD_TABLE, Answered

if TYPE_CHECKING:
    from collections.abc import Sequence


def told(what: str, *, number: int = 1, table: str = BAD_TABLE, sent_s: float = 1.0) -> Answered:
    return Answered(number, table, sent_s, sent_s + 0.01, what, "words")


def looks(*sizes: tuple[float, int, int]) -> list[Look]:
    return [Look(at_s, size, records, alarm=False) for at_s, size, records in sizes]


def test_what_is_acknowledged_or_promised_and_never_came_is_lost() -> None:
    node = DataNode()
    node.published["here"] = 1
    node.writes.add(1)
    kept = [told(DONE, number=1, table="here"), told(PENDING, number=2, table="here"), told(REFUSED, number=3)]
    assert lost(kept, node) == 0
    assert lost([*kept, told(DONE, number=4, table="here")], node) == 1, "acknowledged, and not stored"
    assert lost([*kept, told(PENDING, number=5), told(PENDING, number=6)], node) == 2, "each was told that somebody goes on"


def test_others_are_compared_with_those_before_the_fault() -> None:
    assert served_percent([told(DONE)] * 4, [told(DONE)] * 9) == 100.0
    assert served_percent([told(DONE), told(PENDING)], [told(DONE)]) == 50.0
    assert served_percent([told(DONE), told(REFUSED)], [told(DONE), told(REFUSED)]) == 100.0
    assert served_percent([told(DONE)], []) == 0.0, "nothing to compare with is no success"
    assert served_percent([], [told(DONE)]) == 0.0


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 99, None), ([3.0], 99, 3.0), (list(map(float, range(100))), 99, 99.0), ([2.0, 1.0], 50, 2.0)],
)
def test_percentiles(values: Sequence[float], percent: int, expected: float | None) -> None:
    assert percentile(values, percent) == expected


def test_a_store_grows_beyond_what_the_others_make_it_grow() -> None:
    # 100 bytes a second before the fault, 300 from its begin at 10 s on.
    seen = looks((0.0, 1000, 0), (10.0, 2000, 0), (20.0, 5000, 7))
    assert grown_beyond(seen, 0.0, 10.0, 20.0) == 2000
    assert grown_beyond(seen[:2], 0.0, 10.0, 20.0) == 0, "it stopped growing"
    assert grown_beyond(seen, 10.0, 10.0, 20.0) == 3000, "no warm-up"


def test_the_most_records_of_any_look_during_the_fault() -> None:
    seen = looks((1.0, 0, 9), (10.0, 0, 2), (15.0, 0, 5), (19.0, 0, 1), (20.0, 0, 8))
    assert most_records(seen, 10.0, 20.0) == 5
    assert most_records(seen, 30.0, 40.0) is None


def test_the_data_node_makes_tables_in_steps_and_keeps_writes_of_those_that_are_there() -> None:
    async def scenario() -> None:
        node = DataNode()
        assert (await node._answer(["store", "a", "1"])).startswith(REFUSED)
        for step in ("allocate", "region", "publish"):
            assert await node._answer([step, "a"]) == DONE
        assert await node._answer(["store", "a", "2"]) == DONE
        assert (node.writes, node.published) == ({2}, {"a": 1})

    asyncio.run(scenario())
