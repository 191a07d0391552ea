"""One supervised worker: calls its body again and again, and decides what each outcome means."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from outlast._core.backoff import Backoff
from outlast._core.faults import Fault, Kind
from outlast._core.governor import Ceiling, Governor, Spin
from outlast._core.intensity import Restart
from outlast._core.reaction import RULES, Reaction
from outlast._runtime.dependency.incident import Incident
from outlast._runtime.dependency.outages import Explained, Outages
from outlast._runtime.process.watchdog import Spinning
from outlast._runtime.service.metered import metered
from outlast._runtime.service.progress import Progress, current
from outlast._runtime.service.stop import Stop, Stopping

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Coroutine

    from outlast._core.classify import Classifiers
    from outlast._runtime.dependency.dependency import Dependency

BACKOFF: Final = Backoff(base_s=0.1, cap_s=30.0)
"""Between two failures of one worker: 0.1 s doubling to 30 s, the upper half of it random."""
logger = logging.getLogger("outlast")


@dataclass(slots=True)
class Body:
    """The function of a loop or a task, and the rules that all its workers share."""

    name: str
    function: Callable[[Stop], Awaitable[Any]]
    needs: tuple[Dependency, ...] = ()
    workers: int = 1
    every_s: float | None = None
    restart: Restart = field(default_factory=Restart)
    backoff: Backoff = BACKOFF
    ceiling: Ceiling = field(default_factory=Ceiling)
    once: bool = False
    """A task: done when it returns. A loop is called again."""
    incident: Incident = field(init=False)
    turns: int = 0
    """The number of its calls."""
    failing: set[int] = field(default_factory=set[int])
    """The workers whose last outcome was a fault of their own."""

    @property
    def word(self) -> str:
        """The word for it in lines."""
        return "task" if self.once else "loop"

    @property
    def subject(self) -> str:
        """Its name in lines: "loop settle", "task listen"."""
        return f"{self.word} {self.name}"

    def __post_init__(self) -> None:
        """Check the options, and open the book of the incident. Raises `ValueError`."""
        if self.workers < 1:
            msg = f"{self.subject} needs at least 1 worker, not {self.workers}"
            raise ValueError(msg)
        if self.every_s is not None and self.every_s <= 0:
            msg = f"{self.subject}: every_s must be above 0, not {self.every_s}; None means at once"
            raise ValueError(msg)
        self.incident = Incident(self.subject, verb="is failing")


class Leave(Exception):  # noqa: N818 - a request of a worker to its service
    """A worker asks its service to leave: a FATAL fault, or too many bugs."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


class Worker:
    """One of the workers of a body. What must outlive a restart of the body (backoff, bugs, rate) is kept here."""

    def __init__(self, body: Body, index: int, classifiers: Classifiers, rng: random.Random) -> None:
        self.body = body
        self.index = index
        self.classifiers = classifiers
        self.rng = rng
        self.busy = False
        """Whether the body is running now, rather than waiting to be called."""
        self.turned_at = 0.0
        """The time at which the body was last called, on the event loop's clock."""
        self.outages = Outages(body.name, body.needs, body.backoff, rng)
        self.bugs: tuple[float, ...] = ()
        self.governor = Governor(body.ceiling)
        self.progress = Progress(body.subject)
        self._troubled = False
        """Whether something has failed since health last lasted."""
        self._healthy_since: float | None = None
        self._seen = 0

    @property
    def name(self) -> str:
        """The name of the loop, with the worker's number if there are several."""
        return self.body.name if self.body.workers == 1 else f"{self.body.name}#{self.index}"

    async def run(self, stop: Stop) -> None:
        """Work until the stop is fired, or a task is done. Raises `Leave` to end the service."""
        current.set(self.progress)
        loop = asyncio.get_running_loop()
        try:
            if self.body.every_s is not None and self.body.workers > 1:
                await stop.sleep(self.body.every_s * self.index / self.body.workers)
            while not stop.requested:
                started_at = loop.time()
                await self.outages.until_usable(stop)
                if stop.reason is not None:
                    # It was fired in the very step that let this waiter go.
                    return
                if await self._turn(stop) and self.body.once:
                    return
                await self._pause(stop, started_at)
        except Stopping:
            if not stop.requested:
                raise

    async def _turn(self, stop: Stop) -> bool:
        """Call the body once; True if it returned."""
        loop = asyncio.get_running_loop()
        turned_at = self.turned_at = loop.time()
        self.body.turns += 1
        self.outages.begin()
        task = asyncio.current_task()
        cancelling = 0 if task is None else task.cancelling()
        self.busy = True
        try:
            await metered(_as_coroutine(self.body.function(stop)), self._idle_step)
        except Stopping as exc:
            if stop.requested:
                await self._let_out(exc, stop)
            await self._failed(exc, stop)
            return False
        except asyncio.CancelledError as exc:
            if stop.requested or (task is not None and task.cancelling() > cancelling):
                await self._let_out(exc, stop)
            # Nobody cancelled this worker: the body let somebody else's cancellation out.
            await self._failed(exc, stop)
            return False
        except (Exception, Spinning) as exc:  # noqa: BLE001 - a supervisor takes whatever comes
            self.busy = False
            self._rate(loop.time() - turned_at)
            await self._failed(exc, stop)
            return False
        finally:
            self.busy = False
            # A task group of Python 3.11 or 3.12 that failed leaves a request behind that nobody made.
            while not stop.requested and task is not None and task.cancelling() > cancelling:
                task.uncancel()
        self._rate(loop.time() - turned_at)
        self._succeeded(loop.time())
        return True

    async def _pause(self, stop: Stop, started_at: float) -> None:
        loop = asyncio.get_running_loop()
        wait_s = self.governor.throttle_s
        if self.body.every_s is not None:
            wait_s = max(wait_s, started_at + self.body.every_s - loop.time())
        if wait_s > 0:
            await stop.sleep(wait_s)
        else:
            # Others must get their turn, also beside a body that never awaits.
            await asyncio.sleep(0)

    # Outcomes.

    def _succeeded(self, now: float) -> None:
        if not self._troubled:
            return
        if self._healthy_since is None:
            self._healthy_since = now
        self.outages.waits.worked()
        self.body.failing.discard(self.index)
        if not self.body.failing:
            self.body.incident.better()
        if now - self._healthy_since >= self.outages.waits.reset_after_s():
            self.outages.waits.forget()
            self._troubled, self._healthy_since = False, None
            if not self.body.failing:
                self.body.incident.resolve()

    async def _let_out(self, exc: BaseException, stop: Stop) -> NoReturn:
        """End by our own stop, unless what ended the body hides a FATAL fault: then leave by that."""
        hidden = self.classifiers.fatal_behind(exc)
        if hidden is not None:
            await self._failed(hidden[0], stop)
        logger.debug("%s ends: %r", self.name, exc)
        if isinstance(exc, Exception):
            raise Stopping(stop.reason or "") from exc
        raise exc

    async def _failed(self, exc: BaseException, stop: Stop) -> None:
        """Classify, log within the incident, and wait as the kind demands."""
        fault = self._classify(exc).met_while(stopping=stop.requested)
        if fault.reaction is Reaction.END:
            await self._let_out(exc, stop)
        if stop.requested and fault.reaction is not Reaction.LEAVE:
            exc, fault = self._hidden_in(exc) or (exc, fault)
        explained = self.outages.explain(fault, exc)
        if explained is not Explained.NO:
            await self.outages.wait_for_rhythm(explained, stop)
            return
        now = asyncio.get_running_loop().time()
        self._troubled, self._healthy_since = True, None
        self.body.failing.add(self.index)
        self.body.incident.fault(fault, exc)
        if fault.reaction is Reaction.LEAVE:
            raise Leave(f"{self.name} met a FATAL fault: {fault.code} {fault.reason}", _exit_code(fault))
        if fault.reaction is Reaction.RESTART:
            self.bugs, too_many = self.body.restart.after_bug(self.bugs, now)
            if too_many:
                reason = (
                    f"{self.name} failed through a bug {len(self.bugs)} times within "
                    f"{self.body.restart.period_s:g} s (limit {self.body.restart.bugs_max}): {fault.reason}"
                )
                raise Leave(reason, _exit_code(fault))
        await self.outages.wait(fault, exc, stop)

    def _hidden_in(self, exc: BaseException) -> tuple[BaseException, Fault] | None:
        """Find a FATAL fault behind a member of a group that our stop ended, while another member failed by itself."""
        if not isinstance(exc, BaseExceptionGroup):
            return None
        for member in cast("BaseExceptionGroup[BaseException]", exc).exceptions:
            ended = self._classify(member).reaction is Reaction.END
            found = self.classifiers.fatal_behind(member) if ended else self._hidden_in(member)
            if found is not None:
                return found
        return None

    def _classify(self, exc: BaseException) -> Fault:
        if isinstance(exc, Spinning):
            return Fault(Kind.BUG, "spinning", str(exc), self.body.name)
        return self.classifiers.classify(exc, source=self.body.name)

    # The rate.

    def _idle_step(self) -> float:
        """Record a step inside the body that only yielded or failed; return the seconds to wait before the next."""
        self._rate(0.0)
        return self.governor.throttle_s

    def _rate(self, took_s: float) -> None:
        now = asyncio.get_running_loop().time()
        if self.progress.count != self._seen:
            self._seen = self.progress.count
            self._tell(self.governor.progress(now))
        else:
            self._tell(self.governor.idle(now, took_s))

    def _tell(self, spin: Spin | None) -> None:
        match spin:
            case None:
                pass
            case Spin.STARTED:
                logger.warning(
                    "%s %s spins: %.0f turns a second without useful work (ceiling %.0f); slowed down until it "
                    "waits or works. Await something in it, or call outlast.progress() when a turn was useful",
                    self.body.word,
                    self.name,
                    self.governor.rate_per_s,
                    self.body.ceiling.turns_per_s_max,
                )
            case Spin.ENDED:
                logger.info("%s %s no longer spins (%d turns slowed down)", self.body.word, self.name, self.governor.throttled)


def _exit_code(fault: Fault) -> int:
    code = RULES[fault.kind].exit_code
    assert code is not None, fault.kind  # noqa: S101 - the table has one for every kind that leaves
    return code


async def _await(awaitable: Awaitable[Any]) -> Any:  # noqa: ANN401 - whatever the user's function returns
    return await awaitable


def _as_coroutine(awaitable: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    return awaitable if asyncio.iscoroutine(awaitable) else _await(awaitable)
