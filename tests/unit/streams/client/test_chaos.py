"""A client among faults by a seed: what it said of each append is true, and a tail has seen exactly what is stored."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from client_site import Site

from outlast import OutlastError
from outlast.streams import OutcomeUnknownError
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs
APPENDS = 40


async def history(seed: int, *, sse: bool, with_producer: bool) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """Return what was said of the appends, what is stored in the end, and what a tail has seen."""
    rng, site = random.Random(seed), Site()
    client = site.made(rng=random.Random(seed), deadline_s=20.0)
    orders = await client.create("orders", content_type="application/json")
    faults: list[Any] = [
        site.lose,
        site.drop,
        site.late,
        site.refuse,
        site.hang,
        site.plain(500),
        site.behind(500),
        site.behind(502),
        site.behind(503),
        site.say(503, "stopping", "stopping", retry_after_s=1.0),
        site.say(503, "expired", "overloaded"),
        site.say(504, "outcome unknown", "transient"),
        site.say(507, "ENOSPC", "exhausted", retry_after_s=2.0),
        site.say(429, "rate", "overloaded", retry_after_s=0.5),
    ]

    def draw(request: Any) -> Any:
        happens = rng.choice(faults) if rng.random() < site.chance else site.answer
        return happens(request)

    site.always = draw
    site.cuts = [rng.choice([None, 1, 2, 3, 5, 8]) for _ in range(100)]
    seen: list[str] = []
    told: dict[str, list[str]] = {"stored": [], "unknown": [], "refused": [], "cancelled": []}

    async def tail() -> None:
        async for batch in orders.read(follow=True, sse=sse):
            seen.extend(batch.messages)

    reader = asyncio.create_task(tail())
    for number in range(APPENDS):
        site.chance = rng.choice([0.0, 0.3, 0.9])
        data = f"{number}"
        options: dict[str, Any] = {} if with_producer else {"producer": None}
        append = asyncio.create_task(orders.append(data, wait_for_room=rng.random() < 0.5, **options))
        if rng.random() < 0.1:
            asyncio.get_running_loop().call_later(rng.random(), append.cancel)
        try:
            await append
        except OutcomeUnknownError:
            told["unknown"].append(data)
        except OutlastError:
            told["refused"].append(data)
        except asyncio.CancelledError:
            told["cancelled"].append(data)
        else:
            told["stored"].append(data)
        await asyncio.sleep(rng.choice([0.0, 1.0, 30.0]))
    # All is well again, and what was late has come: it must converge.
    site.chance = 0.0
    await asyncio.sleep(120.0)
    await orders.close()
    await asyncio.wait_for(reader, 600.0)
    return told, [record.decode().strip('"') for record in site.streams["orders"].records], seen


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sse", [False, True], ids=["polls", "events"])
def test_what_is_said_is_true_and_a_tail_sees_what_is_stored_once_and_in_order(seed: int, *, sse: bool) -> None:
    told, stored, seen = run_virtual(lambda: history(seed, sse=sse, with_producer=True))
    assert len(stored) == len(set(stored)), "stored twice"
    assert set(told["stored"]) <= set(stored), "acknowledged and lost"
    assert not set(told["refused"]) & set(stored), "called a failure, and stored"
    assert [data for data in stored if data in set(told["stored"])] == told["stored"]
    assert seen == stored
    assert len(told["stored"]) > APPENDS // 4


@pytest.mark.parametrize("seed", range(6))
def test_without_producers_as_well_nothing_is_stored_twice_and_nothing_stored_is_called_a_failure(seed: int) -> None:
    told, stored, seen = run_virtual(lambda: history(seed, sse=False, with_producer=False))
    assert len(stored) == len(set(stored))
    assert set(told["stored"]) <= set(stored)
    assert not set(told["refused"]) & set(stored)
    assert seen == stored
    assert told["unknown"]
