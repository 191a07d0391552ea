"""The meter of the event loop's lag: what one late beat means, and what many do."""

from __future__ import annotations

import asyncio

import pytest

from outlast._runtime.admission.lag import BEAT_S, BEATS, LagMeter
from outlast.testing import run_virtual
from outlast.testing._time.virtual_time import VirtualTimeLoop


async def hold_the_loop(turn_s: float, turns: int) -> None:
    """Let no turn of the event loop end before so many seconds have passed."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    for _ in range(turns):
        loop.jump(turn_s)
        await asyncio.sleep(0)


def test_an_idle_event_loop_is_not_late() -> None:
    async def main() -> None:
        meter = LagMeter()
        meter.start()
        await asyncio.sleep(60)
        assert meter.lag_s == pytest.approx(0)
        meter.stop()

    run_virtual(main)


@pytest.mark.parametrize("still_s", [0.5, 86400.0])
def test_one_enormous_value_means_nothing_and_neither_do_two(still_s: float) -> None:
    async def main() -> None:
        meter = LagMeter()
        meter.start()
        for _ in range(2):
            await asyncio.sleep(BEAT_S)
            await hold_the_loop(still_s, 1)
            for _ in range(10):
                await asyncio.sleep(BEAT_S / 2)
                assert meter.lag_s == pytest.approx(0)
        assert len(meter._lags_s) == BEATS, "it keeps a bounded number of beats"
        meter.stop()

    run_virtual(main)


def test_turns_that_are_long_again_and_again_are_a_lag_until_they_are_over() -> None:
    async def main() -> None:
        meter = LagMeter()
        meter.start()
        await asyncio.sleep(1)
        await hold_the_loop(0.07, 100)
        assert 0.01 < meter.lag_s <= 2 * 0.07
        await hold_the_loop(0.3, 40)
        assert 0.05 < meter.lag_s <= 2 * 0.3
        await asyncio.sleep(BEATS * BEAT_S * 2)
        assert meter.lag_s == pytest.approx(0)
        meter.stop()

    run_virtual(main)


def test_a_meter_that_is_stopped_sets_no_timer_and_starts_again_without_a_past() -> None:
    async def main() -> None:
        meter = LagMeter()
        meter.start()
        await hold_the_loop(0.3, 40)
        assert meter.lag_s > 0
        meter.stop()
        meter.stop()
        assert meter.lag_s == 0
        assert meter._timer is None
        await asyncio.sleep(3600)
        meter.start()
        await asyncio.sleep(BEAT_S * 1.5)
        assert meter.lag_s == pytest.approx(0)
        meter.stop()

    run_virtual(main)
