"""The task of an admission that measures: one meter for the life of the service, and room while memory is short."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import outlast
from outlast._runtime.admission.memory import MemoryMeter, Reading
from outlast.admission import Criticality, Memory, Refusal
from outlast.testing import run_virtual

if TYPE_CHECKING:
    import pytest


class Scripted(MemoryMeter):
    """A meter that finds as much in use as the test says."""

    made: list[Scripted]
    used_bytes: float

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.made.append(self)
        self.rooms = 0

    async def sample(self) -> Reading:
        return self.used_bytes, 100.0

    async def make_room(self, now: float) -> None:
        self.rooms += 1


def refuses(admission: outlast.Admission, criticality: Criticality) -> bool:
    got = admission.try_enter(criticality=criticality)
    if isinstance(got, Refusal):
        return True
    got.release()
    return False


def test_room_is_made_for_as_long_as_memory_is_short_and_the_meter_stays_the_same(
    monkeypatch: pytest.MonkeyPatch, expected_logs: Any
) -> None:
    expected_logs("admission orders refuses work by memory")
    monkeypatch.setattr("outlast._runtime.admission.meters.MemoryMeter", Scripted)
    Scripted.made, Scripted.used_bytes = [], 50.0
    service = outlast.Service("shop", deadline_s=10.0)
    admission = outlast.Admission("orders", memory=Memory())
    admission.attach(service)

    async def main() -> list[tuple[int, bool, bool]]:
        stop, found = outlast.Stop(), []
        running = asyncio.create_task(service.run(stop))
        await service.until_ready()
        for Scripted.used_bytes in (50.0, 82.0, 95.0, 50.0):
            rooms = Scripted.made[0].rooms
            await asyncio.sleep(1.0)
            refused = [refuses(admission, each) for each in Criticality]
            assert not refused[Criticality.CRITICAL]
            found.append((Scripted.made[0].rooms > rooms, refused[Criticality.NORMAL], refused[Criticality.SHEDDABLE]))
        stop.fire("the test is over")
        await running
        return found

    assert run_virtual(main) == [(False, False, False), (True, False, True), (True, True, True), (False, False, False)]
    assert len(Scripted.made) == 1
