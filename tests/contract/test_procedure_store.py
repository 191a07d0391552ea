"""The store in memory that other tests use keeps the promises of a store of procedures, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from procedure_store_contract import ProcedureStoreContract
from procedure_store_rig import StoreRig

from fake_procedure_store import FakeStore
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class FakeRig(StoreRig):
    def __init__(self) -> None:
        self.first = FakeStore()

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        run_virtual(main)

    def store(self) -> FakeStore:
        return self.first.beside()

    async def advance(self, seconds: float) -> None:
        self.first.held.ahead_s += seconds


class TestAStoreInMemory(ProcedureStoreContract):
    @pytest.fixture
    def rig(self) -> FakeRig:
        return FakeRig()
