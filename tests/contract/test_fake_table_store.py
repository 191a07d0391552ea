"""The table store of the tests in virtual time keeps the promises of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from table_store_reads import ReadContract
from table_store_rig import TableStoreRig
from table_store_shapes import ShapeContract
from table_store_writes import WriteContract

from fake_table_store import FakeTables, FakeTableStore
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class FakeRig(TableStoreRig):
    def __init__(self) -> None:
        self.held = FakeTables()

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        run_virtual(main())

    def store(self) -> FakeTableStore:
        return FakeTableStore(self.held)

    async def by_hand(self, statement: str) -> None:
        self.held.by_hand(statement)

    def check(self) -> None:
        for held in self.held.tables.values():
            assert {series for series, _ in held.points} <= set(held.series.values())
            assert {name for point in held.points.values() for name in point} <= {one.name for one in held.record.fields}


class TestAFakeTableStore(ShapeContract, WriteContract, ReadContract):
    """All but what needs processes."""

    @pytest.fixture
    def rig(self) -> FakeRig:
        return FakeRig()
