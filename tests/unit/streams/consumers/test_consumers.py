"""The consumers of a stream: making, sharing and deleting them, and their bounds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from memory_stream import MemoryStream, consumer_of, positions

from outlast.streams._consumers import Consumers, _consumers, _state
from outlast.streams._errors import LimitError, StreamNotFoundError
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable


def test_it_is_one_for_all_who_ask_and_cannot_have_other_settings_meanwhile() -> None:
    async def main() -> None:
        consumers = Consumers(MemoryStream(3))
        first, second = await asyncio.gather(consumers.consumer("billing"), consumers.consumer("billing"))
        assert first is second
        assert consumers.names == ("billing",)
        with pytest.raises(ValueError, match=r"is in use with lease_s=30 and deliveries_max=5, not 10 and 5"):
            await consumers.consumer("billing", lease_s=10.0)
        other = await consumers.consumer("audit", start=1)
        assert positions(await other.fetch()) == [1, 2]
        assert positions(await first.fetch()) == [0, 1, 2]

    run_virtual(main)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("", {}, "name of a consumer has 1 to 200 bytes"),
        ("x" * 201, {}, "name of a consumer has 1 to 200 bytes"),
        ("a\n", {}, "no control characters"),
        ("a", {"lease_s": 0.0}, "lease_s is above 0"),
        ("a", {"lease_s": float("inf")}, "lease_s is above 0"),
        ("a", {"deliveries_max": 0}, "deliveries_max is at least 1"),
        ("a", {"start": -1}, "start is a position"),
    ],
)
def test_wrong_settings_are_refused(name: str, options: dict[str, float], says: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=says):
            await Consumers(MemoryStream()).consumer(name, **options)  # type: ignore[arg-type]

    run_virtual(main)


def test_wrong_arguments_are_refused() -> None:
    async def main() -> None:
        consumer = await consumer_of(MemoryStream(1))
        with pytest.raises(ValueError, match="a fetch is of 1 record and 1 byte or more, not 0"):
            await consumer.fetch(0)
        with pytest.raises(ValueError, match="position 0 cannot be acknowledged"):
            await consumer.acknowledge(0)
        with pytest.raises(ValueError, match="position -1 cannot be put back"):
            await consumer.put_back(-1)

    run_virtual(main)


def test_a_stream_has_so_many_consumers_and_one_that_is_deleted_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_consumers, "CONSUMERS_MAX", 2)

    async def main() -> None:
        stream = MemoryStream(3)
        consumers = Consumers(stream)
        first = await consumers.consumer("a")
        await consumers.consumer("b")
        with pytest.raises(LimitError, match=r"it has 2 consumers \(limit 2\): delete one"):
            await consumers.consumer("c")
        await first.acknowledge(*positions(await first.fetch()))
        waiting = asyncio.create_task(first.fetch(wait_s=60))
        await asyncio.sleep(1)
        await consumers.delete("a")
        await consumers.delete("nobody")
        with pytest.raises(StreamNotFoundError, match="its consumer 'a' was deleted"):
            await waiting
        with pytest.raises(StreamNotFoundError, match="its consumer 'a' was deleted"):
            await first.acknowledge(0)
        await consumers.consumer("c")
        stream.power_cut()
        again = Consumers(stream)
        await again.consumer("c")
        assert again.names == ("b", "c")

    run_virtual(main)


def test_too_many_put_back_at_once_are_refused(monkeypatch: pytest.MonkeyPatch, expected_logs: Callable[..., None]) -> None:
    monkeypatch.setattr(_state, "OPEN_MAX", 3)
    expected_logs("set aside")

    async def main() -> None:
        consumer = await consumer_of(MemoryStream(6), deliveries_max=1, lease_s=1.0)
        for _ in range(3):
            await consumer.fetch(wait_s=2)
        assert consumer.set_aside == (range(6),)
        with pytest.raises(LimitError, match="acknowledge some first"):
            await consumer.put_back(*range(6))
        await consumer.put_back(5)
        assert positions(await consumer.fetch()) == [5]

    run_virtual(main)


def test_a_deleted_stream_ends_its_consumers() -> None:
    async def main() -> None:
        stream = MemoryStream(3)
        consumer = await consumer_of(stream)
        await consumer.fetch()
        stream.gone = True
        for act in (consumer.fetch(), consumer.acknowledge(0), consumer.put_back(0)):
            with pytest.raises(StreamNotFoundError):
                await act
        for call in (lambda: consumer.lag, lambda: consumer.release(0), lambda: consumer.renew(0)):
            with pytest.raises(StreamNotFoundError):
                call()

    run_virtual(main)


def test_so_many_events_wait_for_the_disk_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_consumers, "WAITING_MAX", 2)

    async def main() -> None:
        stream = MemoryStream(9)
        consumer = await consumer_of(stream)
        await consumer.fetch()
        stream.is_slow = True
        asked = [asyncio.create_task(consumer.acknowledge(0))]
        # It is on its way to the disk, and two wait behind it.
        await asyncio.sleep(1)
        asked += [asyncio.create_task(consumer.acknowledge(position)) for position in (1, 2)]
        await asyncio.sleep(1)
        with pytest.raises(LimitError, match=r"2 acknowledgements and deliveries wait for the disk \(limit 2\)"):
            await consumer.acknowledge(3)
        await asyncio.gather(*asked)
        assert consumer.acknowledged == 3

    run_virtual(main)
