from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

import pytest

from outlast.testing import DeadlockError, Episode, Script, ScriptedPeer, SpinError, Trouble, run_virtual
from outlast.testing._time import virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def now() -> float:
    return asyncio.get_running_loop().time()


def one(trouble: Trouble, **parameters: Any) -> ScriptedPeer:
    """A peer that is in trouble from the tenth second to the twentieth."""
    return ScriptedPeer("db", Script(Episode(10, 20, trouble, **parameters)))


def at(second: float, body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What `body()` gives when it begins at that second."""

    async def main() -> Any:
        await asyncio.sleep(second)
        return await body()

    return run_virtual(main)


def counters(peer: ScriptedPeer) -> tuple[int, int, int, int, int, int]:
    return peer.calls, peer.troubled, peer.effects, peer.answered, peer.replies_lost, peer.in_flight


def test_a_peer_that_is_well_does_the_work_once_and_answers() -> None:
    peer, done = one(Trouble.REFUSE), list[float]()

    def work() -> str:
        done.append(now())
        return "result"

    async def body() -> object:
        await peer.call()
        return await peer.call(work), now()

    assert at(9, body) == ("result", 9)
    assert done == [9]
    assert counters(peer) == (2, 0, 2, 2, 0, 0)


def test_latency_is_half_before_the_work_and_half_after_it() -> None:
    peer = ScriptedPeer("db", latency_s=2)

    async def body() -> object:
        return await peer.call(now), now()

    assert at(0, body) == (1, 2)


def test_refuse_is_at_once_and_without_effect() -> None:
    peer = one(Trouble.REFUSE)
    peer.latency_s = 5

    async def body() -> float:
        with pytest.raises(ConnectionRefusedError, match="db refuses") as caught:
            await peer.call()
        assert caught.value.errno == errno.ECONNREFUSED
        return now()

    assert at(10, body) == 10
    assert counters(peer) == (1, 1, 0, 0, 0, 0)


def test_who_tries_a_peer_again_at_once_is_found_to_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "STANDSTILL_TURNS_MAX", 1000)
    peer = one(Trouble.REFUSE)

    async def body() -> None:
        while True:
            try:
                await peer.call()
            except ConnectionRefusedError:
                continue

    with pytest.raises(SpinError):
        at(10, body)


def test_hang_lasts_beyond_the_episode_until_the_script_is_healed() -> None:
    peer = one(Trouble.HANG)

    async def body() -> object:
        asyncio.get_running_loop().call_at(100, peer.script.heal)
        hanging = asyncio.create_task(peer.call(now))
        await asyncio.sleep(15)
        assert peer.script.held == peer.in_flight == 1
        assert await peer.call(now) == 30
        return await hanging

    assert at(15, body) == 100
    assert counters(peer) == (2, 1, 2, 2, 0, 0)
    assert peer.script.held == 0


def test_a_call_that_hangs_can_be_cancelled_and_has_no_effect() -> None:
    peer = one(Trouble.HANG)

    async def body() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await peer.call()
        peer.script.heal()
        await asyncio.sleep(100)

    at(10, body)
    assert counters(peer) == (1, 1, 0, 0, 0, 0)
    assert peer.script.held == 0


def test_whoever_waits_for_a_peer_that_hangs_without_a_limit_is_deadlocked() -> None:
    with pytest.raises(DeadlockError, match="deadlock at 10 s"):
        at(10, one(Trouble.HANG).call)


@pytest.mark.parametrize(("healed_at_s", "answered_at_s"), [(1000, 19), (14, 14)])
def test_slow_answers_later_or_when_healed(healed_at_s: float, answered_at_s: float) -> None:
    peer = one(Trouble.SLOW, slow_s=7)

    async def body() -> object:
        asyncio.get_running_loop().call_at(healed_at_s, peer.script.heal)
        return await peer.call(now)

    assert at(12, body) == answered_at_s
    assert counters(peer) == (1, 1, 1, 1, 0, 0)


def test_a_lost_reply_is_one_of_work_that_was_done() -> None:
    peer, done = one(Trouble.LOSE_REPLY), list[int]()

    async def body() -> None:
        with pytest.raises(ConnectionResetError, match="the reply of db was lost") as caught:
            await peer.call(lambda: done.append(1))
        assert caught.value.errno == errno.ECONNRESET

    at(10, body)
    assert done == [1]
    assert counters(peer) == (1, 1, 1, 0, 1, 0)


def test_a_call_that_is_cancelled_after_its_work_has_lost_its_reply() -> None:
    peer, done = ScriptedPeer("db", latency_s=2), list[int]()

    async def body() -> None:
        for limit_s in (0.5, 1.5, 2.5):
            task = asyncio.create_task(peer.call(lambda: done.append(1)))
            await asyncio.wait({task}, timeout=limit_s)
            task.cancel()
            await asyncio.wait({task})

    at(0, body)
    assert done == [1, 1]
    assert counters(peer) == (3, 0, 2, 1, 1, 0)


def test_fail_raises_a_new_error_each_time_and_does_nothing() -> None:
    peer = one(Trouble.FAIL)
    mine = one(Trouble.FAIL, error=lambda: ValueError("mine"))
    errors: list[OSError] = []

    async def body() -> None:
        for _ in range(2):
            with pytest.raises(OSError, match="corrupted") as caught:
                await peer.call()
            errors.append(caught.value)
        with pytest.raises(ValueError, match="mine"):
            await mine.call()

    at(10, body)
    assert [error.errno for error in errors] == [errno.EIO] * 2
    assert errors[0] is not errors[1]
    assert counters(peer) == (2, 2, 0, 0, 0, 0)


def test_a_call_that_began_in_trouble_is_well_when_the_script_is_healed_on_its_way() -> None:
    peer = one(Trouble.LOSE_REPLY)
    peer.latency_s = 2

    async def body() -> object:
        asyncio.get_running_loop().call_later(0.5, peer.script.heal)
        return await peer.call(now)

    assert at(10, body) == 11
    assert counters(peer) == (1, 1, 1, 1, 0, 0)


def test_what_the_work_raises_comes_through_and_is_no_effect() -> None:
    peer = one(Trouble.LOSE_REPLY)

    async def body() -> None:
        with pytest.raises(ZeroDivisionError):
            await peer.call(lambda: 1 // 0)

    at(10, body)
    assert counters(peer) == (1, 1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [(Trouble.REFUSE, ConnectionRefusedError), (Trouble.LOSE_REPLY, ConnectionResetError), (Trouble.FAIL, OSError)],
)
def test_a_probe_fails_as_a_call_does_and_counts_apart(trouble: Trouble, error: type[Exception]) -> None:
    peer = one(trouble)

    async def body() -> None:
        with pytest.raises(error):
            await peer.probe()
        await asyncio.sleep(10)
        await peer.probe()

    at(10, body)
    assert peer.probes == 2
    assert counters(peer) == (0, 1, 0, 0, 0, 0)
