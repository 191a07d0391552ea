"""The refusal in place of an error: the first who meet an outage are refused as those after them."""

from __future__ import annotations

import pytest

import outlast
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs


def test_who_meets_an_outage_first_is_refused_as_everyone_after() -> None:
    async def main() -> None:
        db = outlast.Dependency("db")
        with pytest.raises(ConnectionRefusedError) as first:
            async with db.use():
                raise ConnectionRefusedError(111, "connection refused")
        refusal = db.refusal(first.value)
        with pytest.raises(outlast.Unavailable) as second:
            async with db.use():
                pytest.fail("it is down")
        assert (refusal.fault, refusal.dependency) == (second.value.fault, second.value.dependency)
        assert db.refusal(second.value) is second.value
        await db.close()

    run_virtual(main)


def test_a_fault_that_is_no_outage_is_refused_with_its_own_cause_and_wait() -> None:
    db = outlast.Dependency("db")
    busy = outlast.Fault(outlast.Kind.OVERLOADED, "429", "slow down", "db", outlast.Scope.CALL, retry_after_s=7.0)
    refusal = db.refusal(outlast.OutlastError("slow down", busy))
    assert (refusal.fault, refusal.retry_after_s, refusal.since_s) == (busy, 7.0, 0.0)
    assert db.refusal(outlast.OutlastError("full", outlast.Fault(outlast.Kind.EXHAUSTED, "full", "no room"))).retry_after_s == 1.0
