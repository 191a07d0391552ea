"""The sieve: one entry that the store refuses stops no other, and what concerns everyone is raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outlast import Dependency, Fault, Kind, OutlastError, Scope, Unavailable
from outlast.extend import Sieve, fault_of_call
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.expected_logs


def error(kind: Kind, scope: Scope = Scope.CALL) -> OutlastError:
    return OutlastError("no", Fault(kind, "no", "no", scope=scope))


class Table:
    """A store that refuses each number by what `says` returns for it."""

    def __init__(self, says: Callable[[int], Kind | None]) -> None:
        self.says = says
        self.is_there = True
        self.written: list[int] = []
        self.aside: list[int] = []
        self.calls = 0
        self.sieve = Sieve(Dependency("store"), self.write, self.set_aside)

    async def write(self, entries: list[int]) -> None:
        self.calls += 1
        if not self.is_there:
            raise error(Kind.PERMANENT)
        for entry in entries:
            if (kind := self.says(entry)) is not None:
                raise error(kind)
        self.written += entries

    async def set_aside(self, entry: int, fault: Fault) -> bool:
        self.aside.append(entry)
        return fault.kind is not Kind.BUG

    def record(self, count: int) -> list[int]:
        return run_virtual(lambda: self.sieve.record(list(range(count))))


def test_those_that_are_refused_are_set_aside_and_all_others_recorded_in_order() -> None:
    table = Table(lambda entry: Kind.REJECTED if entry in {3, 250} else None)
    assert table.record(500) == []
    assert table.aside == [3, 250]
    assert table.written == [entry for entry in range(500) if entry not in {3, 250}]
    assert table.calls < 60, "halved, not one by one"


def test_what_is_not_now_is_left_for_later() -> None:
    table = Table(lambda entry: Kind.CONTENDED if entry == 7 else None)
    assert table.record(20) == [7]
    assert table.aside == []


def test_many_in_a_row_have_a_cause_in_common_and_count_against_no_further_one() -> None:
    table = Table(lambda _: Kind.BUG)
    assert table.record(100) == list(range(100))
    assert len(table.aside) == 21


def test_a_table_that_is_not_there_is_nobodys_fault() -> None:
    table = Table(lambda _: None)
    table.is_there = False
    with pytest.raises(OutlastError):
        table.record(10)
    assert table.aside == []


def test_what_concerns_everyone_is_raised() -> None:
    async def main() -> None:
        db = Dependency("store")
        for exc in (Unavailable("store", Fault(Kind.TRANSIENT, "x", "y"), 0, 0), error(Kind.TRANSIENT, Scope.DEPENDENCY)):
            with pytest.raises(type(exc)):
                fault_of_call(db, exc)
        assert fault_of_call(db, error(Kind.REJECTED)).kind is Kind.REJECTED
        await db.close()

    run_virtual(main)
