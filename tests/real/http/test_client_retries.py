"""One layer retries: a job of five attempts costs a peer that says 503 five requests, as docs/http_client.md promises."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import httpx
import pytest
from scripted_server import ScriptedServer

from outlast import Backoff, HealthPolicy, State, Unavailable
from outlast.admission import Throttle
from outlast.http import HttpPeer
from outlast.jobs import Handling, Job
from outlast.jobs._decide import after_fault

if TYPE_CHECKING:
    from conftest import RunAsync
    from outlast.jobs._model import Outcome

pytestmark = pytest.mark.expected_logs
ATTEMPTS = 5
HANDLING = Handling(attempts_max=ATTEMPTS)
QUICK = Backoff(base_s=0.01, cap_s=0.02)
SOON = HealthPolicy(probe=QUICK, relapse=QUICK)
"""A peer that is down is asked again at once, so that a test need not wait: what is counted does not depend on it."""


async def attempt(peer: HttpPeer, number: int, path: str) -> Outcome | None:
    """Run the handler of a job once, and decide as the queue does; None: it is done."""
    try:
        await peer.post(path, content=b"pay")
    except Exception as exc:  # noqa: BLE001 - as a worker does
        fault = peer.classifiers.classify(exc, source=peer.name)
        job = Job(1, "pay", None, number, ATTEMPTS)
        return after_fault(job, fault, exc, HANDLING, "db", random.Random(1))
    return None


async def life(peer: HttpPeer, path: str) -> list[Outcome]:
    """Run a job to its end; the waits between its attempts are left out."""
    outcomes: list[Outcome] = []
    number = 1
    while not outcomes or outcomes[-1].state == "available":
        outcome = await attempt(peer, number, path)
        if outcome is None:
            break
        outcomes.append(outcome)
        number += not outcome.give_back
        # Longer than what is taken for coming back at once.
        await asyncio.sleep(0.011)
        if peer.state is State.DOWN:
            await peer.ready()
    return outcomes


@pytest.mark.parametrize("library", ["httpx2", "httpx"])
@pytest.mark.parametrize("status", [503, 500, 429])
def test_the_server_sees_one_request_for_each_attempt(run_async: RunAsync, library: str, status: int) -> None:
    async def main() -> None:
        async with ScriptedServer() as server, httpx.AsyncClient(trust_env=False) as client:
            peer = HttpPeer(server.url, client=client if library == "httpx" else None, policy=SOON)
            outcomes = await life(peer, f"/status/{status}")
            assert server.counts()["POST"] == ATTEMPTS
            assert [outcome.state for outcome in outcomes] == ["available"] * (ATTEMPTS - 1) + ["dead"]
            await peer.close()

    run_async(main)


def test_a_throttle_makes_the_same_requests_later(run_async: RunAsync) -> None:
    async def main() -> None:
        async with ScriptedServer() as server:
            peer = HttpPeer(server.url, throttle=Throttle(), rng=random.Random(1))
            outcomes = await life(peer, "/status/429")
            assert server.counts()["POST"] == ATTEMPTS
            refused = [outcome for outcome in outcomes if outcome.give_back]
            assert refused
            assert min(outcome.delay_s for outcome in refused) >= 1.0
            assert outcomes[-1].state == "dead"
            await peer.close()

    run_async(main)


def test_a_refusal_with_retry_after_sets_the_delay_of_the_job(run_async: RunAsync) -> None:
    async def main() -> None:
        async with ScriptedServer() as server:
            for number in range(1, ATTEMPTS + 1):
                # Each time in another worker process, which does not know yet that the peer is down.
                peer = HttpPeer(server.url)
                outcome = await attempt(peer, number, "/status/503/700")
                assert outcome is not None
                assert number == ATTEMPTS or outcome.delay_s >= 700.0
                await peer.close()
            assert (server.counts()["POST"], outcome.state) == (ATTEMPTS, "dead")

    run_async(main)


def test_while_the_peer_is_down_a_job_costs_it_nothing_and_no_attempt(run_async: RunAsync) -> None:
    async def main() -> None:
        async with ScriptedServer() as server:
            peer = HttpPeer(server.url)
            await attempt(peer, 1, "/status/503/700")
            for _ in range(5):
                outcome = await attempt(peer, 2, "/status/503/700")
                assert outcome is not None
                assert outcome.give_back
                assert outcome.delay_s > 600.0
                await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await peer.post("/status/503/700")
            assert server.counts()["POST"] == 1
            await peer.close()

    run_async(main)
