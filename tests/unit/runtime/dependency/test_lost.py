"""A dependency that has ended, alone: one line, no probe, a process that lives on; and what its first line is completed by."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

import outlast
from outlast import Fault, Kind, OutlastError, Scope, State
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.expected_logs

ENDED = Fault(Kind.FATAL, "EIO", "the ground is gone", "volume", Scope.CHILD)


class Volume(outlast.Dependency):
    """Fails its probe with what the test says, and says more about a fault."""

    def __init__(self) -> None:
        super().__init__("volume")
        self.error: Exception | None = None
        self.asked = 0
        self.more: Callable[[], str] | None = None
        self.say_after_s = 0.0

    async def probe(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error

    async def circumstances(self, fault: Fault) -> str:
        await asyncio.sleep(self.say_after_s)
        return self.more() if self.more is not None else ""


async def fail(volume: Volume, fault: Fault = ENDED) -> None:
    with pytest.raises(OutlastError):
        async with volume.use():
            raise OutlastError("it failed", fault)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_what_has_ended_is_told_once_refused_with_its_cause_and_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        volume = Volume()
        for _ in range(3):
            volume.observe(ENDED)
        await asyncio.sleep(20)
        with pytest.raises(outlast.Unavailable) as refused:
            async with volume.use():
                pass
        assert refused.value.fault is ENDED
        assert refused.value.retry_after_s == 60.0
        assert volume.is_lost
        assert volume.asked == 0
        with pytest.raises(outlast.Unavailable):
            await volume.ready(timeout_s=5)
        assert volume.asked == 0, "neither do those who wait have it asked"
        await volume.close()

    run_virtual(main)
    assert [level for level, _ in told(caplog)] == ["CRITICAL"]


def test_what_was_mended_is_asked_at_once_and_its_waiters_go_on() -> None:
    async def main() -> None:
        volume = Volume()
        await fail(volume)
        waiting = asyncio.create_task(volume.ready())
        await asyncio.sleep(5)
        volume.error = OutlastError("still", ENDED)
        volume.try_again()
        await asyncio.sleep(100)
        assert (volume.asked, volume.is_lost, waiting.done()) == (1, True, False)
        volume.error = None
        volume.try_again()
        volume.try_again()
        await waiting
        assert (volume.asked, volume.state) == (2, State.RECOVERING)
        volume.try_again()
        await asyncio.sleep(5)
        assert volume.asked == 2, "there is nothing to try"
        await volume.close()

    run_virtual(main)


@pytest.mark.parametrize("needed", [True, False], ids=["needed", "not needed"])
def test_a_service_lives_on_when_one_of_its_dependencies_has_ended(needed: bool) -> None:  # noqa: FBT001
    async def main() -> int | str:
        volume, service, stop, turns = Volume(), outlast.Service("shop"), outlast.Stop(), 0
        await fail(volume)

        async def write(stop: outlast.Stop) -> None:
            async with volume.use():
                pass

        async def serve(stop: outlast.Stop) -> None:
            nonlocal turns
            turns += 1

        service.loop(needs=volume if needed else (), name="write")(write)
        service.loop(every_s=1.0, name="serve")(serve)
        asyncio.get_running_loop().call_later(100, stop.fire, "the test is over")
        code = await service.run(stop)
        assert turns >= 99
        return code

    assert run_virtual(main) == 0


def test_the_line_that_opens_an_incident_is_completed_and_none_overtakes_it(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        volume = Volume()
        volume.say_after_s, volume.more = 0.2, lambda: "it holds 17 eggs"
        await fail(volume, Fault(Kind.EXHAUSTED, "full", "no room", "volume"))
        volume.observe(Fault(Kind.EXHAUSTED, "fuller", "no room at all", "volume"))
        assert told(caplog) == [], "nobody is held up by it, but the lines"
        await asyncio.sleep(0.3)
        assert [text for _, text in told(caplog)][:2] == [
            "volume is down: EXHAUSTED full no room; it holds 17 eggs",
            "volume: also EXHAUSTED fuller no room at all",
        ]
        await volume.close()

    run_virtual(main)


@pytest.mark.parametrize("trouble", ["slow", "failing"])
def test_the_line_goes_out_without_what_is_not_found_in_time(trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    def more() -> str:
        raise ValueError("nobody knows")

    async def main() -> None:
        volume = Volume()
        volume.say_after_s, volume.more = (60.0 if trouble == "slow" else 0.0), more
        await fail(volume)
        await asyncio.sleep(1)
        assert [text for _, text in told(caplog)] == ["volume is down: FATAL EIO the ground is gone"]
        await volume.close()

    run_virtual(main)


def test_the_line_goes_out_when_the_dependency_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        volume = Volume()
        volume.say_after_s = 60.0
        await fail(volume)
        await volume.close()
        assert len(told(caplog)) == 1

    run_virtual(main)


def test_without_an_event_loop_the_line_waits_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    volume = Volume()
    threading.Thread(target=volume.observe, args=(ENDED,)).run()
    assert len(told(caplog)) == 1
