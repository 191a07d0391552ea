"""Retry plain functions, sync and async: only what may pass by itself, and within a budget."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from outlast._core.backoff import INITIAL, Backoff, BackoffState, Jitter
from outlast._core.budget import RetryBudget
from outlast._core.classify import Classifiers
from outlast._core.faults import attach
from outlast._core.reaction import PASSING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast._core.reaction import Kind

P = ParamSpec("P")
R = TypeVar("R")

BACKOFF: Final = Backoff(base_s=0.1, cap_s=5.0, jitter=Jitter.FULL, attempts_max=4, elapsed_s_max=30.0)
"""Four retries within half a minute: a caller is waiting."""


class Retry:
    """Decides, for the calls of one function, whether and when to try again. Safe for threads."""

    def __init__(
        self,
        *,
        backoff: Backoff = BACKOFF,
        kinds: frozenset[Kind] = PASSING,
        budget: RetryBudget | None = None,
        classifiers: Classifiers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Take the policies. `budget` may be shared by several functions that call the same peer."""
        self.backoff = backoff
        self.kinds = kinds
        self.budget = budget or RetryBudget()
        self.classifiers = classifiers or Classifiers()
        self._rng = rng or random.Random()
        # Protects `_rng` and the budget, which the calls of several threads share. Nobody is called while it is held.
        self._lock = threading.Lock()

    def called(self) -> None:
        """Count a first attempt: it earns the budget a fifth of a retry."""
        self.budget.call()

    def after(self, exc: BaseException, state: BackoffState, now: float) -> tuple[BackoffState, float | None]:
        """Return the wait before the next attempt; None means that `exc` is the answer."""
        fault = self.classifiers.classify(exc)
        attach(exc, fault)
        if fault.kind not in self.kinds:
            return state, None
        with self._lock:
            state, wait_s = self.backoff.next(state, now, self._rng, fault.retry_after_s)
            if wait_s is None:
                exc.add_note(f"outlast.retry gave up after {state.attempt} attempts")
            elif not self.budget.take(now):
                exc.add_note("outlast.retry did not try again: the retry budget is used up")
                wait_s = None
        return state, wait_s

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a coroutine function or a plain one."""
        if inspect.iscoroutinefunction(function):
            wrapped: Any = self._async(cast("Callable[P, Awaitable[Any]]", function))
        else:
            wrapped = self._sync(function)
        return cast("Callable[P, R]", functools.update_wrapper(wrapped, function))

    def _sync(self, function: Callable[P, R]) -> Callable[P, R]:
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            self.called()
            state = INITIAL
            while True:
                try:
                    return function(*args, **kwargs)
                except Exception as exc:
                    state, wait_s = self.after(exc, state, time.monotonic())
                    if wait_s is None:
                        raise
                time.sleep(wait_s)

        return call

    def _async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            self.called()
            state = INITIAL
            while True:
                try:
                    return await function(*args, **kwargs)
                except Exception as exc:
                    state, wait_s = self.after(exc, state, asyncio.get_running_loop().time())
                    if wait_s is None:
                        raise
                await asyncio.sleep(wait_s)

        return call


def retry(
    *,
    backoff: Backoff = BACKOFF,
    kinds: frozenset[Kind] = PASSING,
    budget: RetryBudget | None = None,
    classifiers: Classifiers | None = None,
    rng: random.Random | None = None,
) -> Retry:
    """Decorate a sync or async function: faults that may pass by themselves are tried again.

        @outlast.retry()
        def fetch(url: str) -> bytes: ...

    Defaults: four retries, full jitter from 0.1 to 5 s, 30 s in all, `retry_after_s` of the peer obeyed, and no more
    retries than 20 % of the calls plus three a second. The last exception is raised unchanged, with its
    fault attached and a note. Cancellation is never retried. Retry only what may be done twice.
    """
    return Retry(backoff=backoff, kinds=kinds, budget=budget, classifiers=classifiers, rng=rng)
