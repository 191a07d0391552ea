"""The states of a standby, its lock and its fence, without a server."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import Fault, Kind
from outlast._core.faults import attached
from outlast.postgres import Postgres
from outlast.postgres.ownership._epochs import FencedError, Fences
from outlast.postgres.ownership._standby import TRANSITIONS, Standby, StandbyState, lock_key


def standby(name: str = "shop") -> Standby:
    return Standby(Postgres("postgresql://localhost/shop"), name)


def test_every_state_can_be_reached_and_left() -> None:
    assert {before for before, _ in TRANSITIONS} == set(StandbyState) == {after for _, after in TRANSITIONS}


@pytest.mark.parametrize("before", StandbyState)
@pytest.mark.parametrize("after", StandbyState)
def test_only_the_table_changes_the_state(before: StandbyState, after: StandbyState) -> None:
    one = standby()
    one.state = before
    if before is after or (before, after) in TRANSITIONS:
        one._enter(after)
        assert one.state is after
    else:
        with pytest.raises(RuntimeError, match="cannot go from"):
            one._enter(after)
        assert one.state is before


@given(st.text(max_size=100))
def test_a_lock_key_fits_the_server_and_never_changes(name: str) -> None:
    assert -(2**63) <= lock_key(name) < 2**63
    assert lock_key(name) == lock_key(name)


def test_the_key_of_a_name_is_the_same_in_every_version() -> None:
    """Two releases that run side by side during an upgrade must mean the same lock."""
    assert lock_key("shop") == KEY_OF_SHOP
    assert lock_key("shop") != lock_key("shop2")


KEY_OF_SHOP = -4219368292054417495


def test_a_line_is_said_once_however_often_it_is_entered(caplog: pytest.LogCaptureFixture) -> None:
    one = standby()
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            one._say("standby 1 x", "%s: standing by", "shop")
        one._say("owner", "%s: taken over", "shop")
        one._say("standby 1 x", "%s: standing by", "shop")
    assert [record.getMessage() for record in caplog.records] == ["shop: standing by", "shop: taken over", "shop: standing by"]


def test_being_fenced_says_by_whom_and_is_no_fault_of_the_server() -> None:
    error = FencedError("shop", 3, 4, "host-b pid 9")
    assert "our epoch 3 is over, it is epoch 4 of host-b pid 9" in str(error)
    fault = attached(error)
    assert fault is not None
    assert fault.kind is Kind.CONTENDED
    assert not fault.is_evidence
    assert "gone from the table" in str(FencedError("shop", 3, None, ""))


async def fenced(fences: Fences, times: int, *, lost: bool = False) -> list[Kind | None]:
    kinds: list[Kind | None] = []
    for number in range(times):
        session = asyncio.get_running_loop().create_future()
        if lost:
            session.set_result(Fault(Kind.TRANSIENT, "lock lost", ""))
        with pytest.raises(FencedError) as caught, fences.counted(session):
            raise FencedError("shop", number, 40, "another owner")
        fault = attached(caught.value)
        kinds.append(None if fault is None else fault.kind)
        if fault is not None and fault.kind is Kind.PERMANENT:
            assert "name=" in fault.hint
            assert "UPDATE \"our own\".epochs SET epoch = 40 WHERE name = 'shop'" in fault.hint
    return kinds


def test_being_fenced_again_and_again_with_the_lock_in_hand_is_for_a_person_to_put_right() -> None:
    waits = [Kind.CONTENDED] * 2
    fences = Fences("shop", "our own")
    assert asyncio.run(fenced(fences, 4)) == [*waits, Kind.PERMANENT, Kind.PERMANENT]
    fences.written()
    assert asyncio.run(fenced(fences, 3)) == [*waits, Kind.PERMANENT]


def test_being_fenced_because_the_lock_went_to_another_is_not_counted() -> None:
    assert asyncio.run(fenced(Fences("shop", "our own"), 5, lost=True)) == [Kind.CONTENDED] * 5
