"""The root names, as those who write a service use them. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

import logging
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, assert_never, assert_type

import outlast
from outlast import Fault, Kind, Link, Phase, State, Stop, Unavailable
from outlast.logs import FoldPolicy, QueuedHandler
from outlast.logs.stdlib import fold

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

peer = outlast.Dependency("peer", probe_timeout_s=2.0, policy=outlast.HealthPolicy())
service = outlast.Service("shop", deadline_s=10.0)


# Loops and tasks keep the types of the functions that they decorate.


@service.loop(needs=peer, workers=50, restart=outlast.Restart(bugs_max=None), ceiling=outlast.Ceiling(turns_per_s_max=None))
async def settle(stop: Stop) -> None:
    assert_type(stop.requested, bool)
    async with peer.use("settle"):
        await stop.sleep(0.1)
    async with stop.timeout(5.0):
        await stop.wait()
    outlast.progress()


@service.task(needs=(peer,), backoff=outlast.Backoff(base_s=0.1, cap_s=30.0))
async def watch(stop: Stop) -> int:
    return 1 if stop.requested else 0


async def called_as_before(stop: Stop) -> None:
    assert_type(await settle(stop), None)
    assert_type(await watch(stop), int)


@service.on_stop
async def flush() -> None: ...


@service.on_start
async def warm_up() -> None: ...


service.on_stop(warm_up, phase=Phase.REFUSE)
service.add(outlast.Service("mailer"))
assert_type(service.ready, bool)
assert_type(service.phase, Phase | None)
assert_type(service.dependencies, list[outlast.Dependency])


# Guards and retries too, for plain functions and coroutine functions alike.


@peer.guard
def plain(number: int, *, name: str = "") -> str:
    return name * number


@outlast.retry(kinds=frozenset({Kind.TRANSIENT}), budget=outlast.RetryBudget())
@peer.guard
async def awaited(number: int) -> bytes:
    return bytes(number)


assert_type(plain(1, name="a"), str)
guarded: Callable[[int], Awaitable[bytes]] = awaited


async def handler() -> tuple[int, str]:
    try:
        async with peer.use():
            assert_type(await awaited(1), bytes)
            return 200, ""
    except Unavailable as refusal:
        assert_type(refusal.retry_after_s, float)
        assert_type(refusal.fault, Fault)
        assert_type(refusal.fault.scope, outlast.Scope)
        return 503, refusal.fault.reason
    except outlast.Stopping as refusal:
        return 503, str(refusal)


def from_a_thread() -> None:
    gate = outlast.Gate("imports", holders_max=3)
    peer.blocking.ready(timeout_s=1.0)
    with peer.blocking.use():
        pass
    with service.gate.enter("import"), gate.enter("import"):
        assert_type(gate.refused, int)


# What a fault, a kind and a state are.


def judge(exc: BaseException, phase: str) -> Fault | None:
    return Fault(Kind.REJECTED, phase, str(exc)) if isinstance(exc, LookupError) else None


rules = outlast.Classifiers([judge])
assert_type(rules.classify(LookupError(), source="peer"), Fault)
assert_type(peer.report(LookupError()), Fault)
assert_type(peer.state, State)
assert_type(peer.fault, Fault | None)
assert_type(peer.incident, outlast.Incident)


def every_state(state: State) -> bool:
    match state:
        case State.UP | State.RECOVERING:
            return True
        case State.DOWN:
            return False
        case _:
            assert_never(state)


def listen(state: State, first: Fault | None) -> None: ...


forget = peer.subscribe(listen)
assert_type(forget(), None)


# A dependency of one's own, and a link whose session keeps its type from `dial` to `serve`.


class Peer(outlast.Dependency):
    async def probe(self) -> None: ...

    def counts(self, exc: BaseException) -> bool:
        return isinstance(exc, OSError)


class Session:
    number: int = 0


@asynccontextmanager
async def dial() -> AsyncGenerator[Session]:
    yield Session()


async def serve(session: Session, stop: Stop) -> None:
    assert_type(session.number, int)
    await stop.wait()


link = Link("controller", dial=dial, serve=serve)
assert_type(link, Link[Session])
link.attach(service, needs=(Peer("peer"), peer))


# The end of the process, and its logs.


def main() -> int:
    logging.getLogger("shop").addHandler(QueuedHandler(sys.stderr, lines_max=10_000))
    with fold("shop", FoldPolicy(burst=3), incidents=[peer.incident]):
        try:
            return assert_type(outlast.run(service, listen="127.0.0.1:8080", fold_logs=True), int)
        except outlast.ConfigurationError as error:
            an_error: outlast.OutlastError = error
            return len(str(an_error))
