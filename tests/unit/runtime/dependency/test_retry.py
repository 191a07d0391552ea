"""Retries of plain functions: what is tried again, how often, and what is never."""

from __future__ import annotations

import asyncio
import random

import pytest

import outlast
from outlast.testing import run_virtual

QUICK = outlast.Backoff(1e-6, 1e-6, attempts_max=4)


def test_what_may_pass_is_tried_again() -> None:
    calls = 0

    @outlast.retry(backoff=QUICK)
    def fetch() -> str:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise ConnectionResetError
        return "done"

    assert fetch() == "done"
    assert calls == 4


@pytest.mark.parametrize("error", [ValueError("a bug"), PermissionError(13, "denied"), OSError(5, "EIO")])
def test_what_cannot_pass_by_itself_is_not(error: Exception) -> None:
    calls = 0

    @outlast.retry(backoff=QUICK)
    def fetch() -> None:
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(type(error)):
        fetch()
    assert calls == 1


def test_the_last_error_comes_out_unchanged_with_a_note() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()

        @outlast.retry(rng=random.Random(1))
        async def fetch() -> None:
            raise ConnectionResetError(104, "reset")

        with pytest.raises(ConnectionResetError) as caught:
            await fetch()
        assert caught.value.__notes__ == ["outlast.retry gave up after 5 attempts"]
        return loop.time()

    assert run_virtual(main) < 30


def test_what_the_peer_asks_for_is_waited_for() -> None:
    async def main() -> float:
        busy = outlast.Fault(outlast.Kind.OVERLOADED, "429", "slow down", retry_after_s=7.0)
        tried = 0

        @outlast.retry(classifiers=outlast.Classifiers([lambda exc, phase: busy]))
        async def fetch() -> None:
            nonlocal tried
            tried += 1
            if tried == 1:
                raise LookupError

        await fetch()
        return asyncio.get_running_loop().time()

    assert 7.0 <= run_virtual(main) <= 10.5


def test_the_budget_bounds_the_storm() -> None:
    """A hundred calls at once that all fail: not five hundred attempts."""

    async def main() -> int:
        attempts = 0

        @outlast.retry()
        async def fetch() -> None:
            nonlocal attempts
            attempts += 1
            raise ConnectionResetError

        results = await asyncio.gather(*(fetch() for _ in range(100)), return_exceptions=True)
        assert all(isinstance(result, ConnectionResetError) for result in results)
        return attempts

    assert run_virtual(main) <= 100 + 20 + 30 + 3 * 30


def test_cancellation_is_never_retried() -> None:
    async def main() -> int:
        calls = 0

        @outlast.retry()
        async def fetch() -> None:
            nonlocal calls
            calls += 1
            await asyncio.sleep(3600)

        task = asyncio.create_task(fetch())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return calls

    assert run_virtual(main) == 1


def test_a_decorated_function_keeps_its_name() -> None:
    @outlast.retry()
    def fetch() -> None:
        """Fetch it."""

    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch it.")
