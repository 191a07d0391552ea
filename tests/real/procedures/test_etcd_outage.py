"""etcd stopped, frozen and out of its quota while procedures are submitted and run: what was accepted ends once.

The long rounds keep etcd away for a minute each; with `-s` they print how soon procedures ended again once it served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from outlast import Service, Stop
from outlast.etcd import NOSPACE, Etcd, EtcdError
from outlast.procedures import Procedure, ProcedureRefused, Procedures, ProcedureState
from outlast.testing import EtcdServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunAsync
    from outlast.procedures import ProcedureHandle, Run

EVERY_S = 0.05
QUOTA_BYTES = 3 * 2**20


@pytest.fixture
def small() -> Iterator[EtcdServer]:
    """A server with a small quota."""
    with EtcdServer(quota_bytes=QUOTA_BYTES) as server:
        yield server


async def fill(etcd: Etcd) -> None:
    """Write what is none of the procedures' until there is no more room."""
    with contextlib.suppress(EtcdError):
        for n in range(100):
            await etcd.put(b"filler/%d" % n, b"x" * 100_000)
    assert etcd.is_full


async def make_room(etcd: Etcd) -> None:
    """Do what the hint says."""
    await etcd.delete(b"filler/", is_prefix=True)
    await etcd.compact((await etcd.range(limit=1)).revision)
    await etcd.defragment(deadline_s=60.0)
    await etcd.disarm()


async def begin(trouble: str, server: EtcdServer, other: Etcd) -> None:
    if trouble == "full":
        await fill(other)
    else:
        {"stopped": server.stop, "frozen": server.freeze}[trouble]()


async def end(trouble: str, server: EtcdServer, other: Etcd) -> None:
    """End it; when this returns etcd serves."""
    if trouble == "full":
        await make_room(other)
    elif trouble == "frozen":
        server.thaw()
    else:
        await asyncio.to_thread(server.start)


class Traffic:
    """Submits a procedure every so often, and notes what comes of each."""

    def __init__(self) -> None:
        self.accepted: list[ProcedureHandle] = []
        self.refusals: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        """By key: how often its step has ended."""
        self.is_over = False

    async def step(self, run: Run) -> str:
        await asyncio.sleep(0.02)
        self.ended[run.key] += 1
        return run.key

    async def submit(self, procedures: Procedures) -> None:
        number = 0
        while not self.is_over:
            try:
                self.accepted.append(await procedures.submit("work", f"{number}"))
            except ProcedureRefused as refusal:
                self.refusals[refusal.fault.code] += 1
            number += 1
            await asyncio.sleep(EVERY_S)

    async def more(self, count: int = 1) -> tuple[float, float]:
        """Return when so many more have been accepted and have ended: the seconds until each."""
        loop = asyncio.get_running_loop()
        began_at, before = loop.time(), len(self.accepted)
        while len(self.accepted) < before + count:
            await asyncio.sleep(0.005)
        accepted_s = loop.time() - began_at
        await asyncio.gather(*(handle.wait(60.0) for handle in self.accepted[before : before + count]))
        return accepted_s, loop.time() - began_at


@pytest.mark.expected_logs
@pytest.mark.parametrize("outage_s", [pytest.param(2.5, id="short"), pytest.param(60.0, id="60 s", marks=pytest.mark.long)])
@pytest.mark.parametrize("trouble", ["stopped", "frozen", "full"])
def test_all_goes_on_when_etcd_is_back(
    small: EtcdServer, run_async: RunAsync, tmp_path: Path, trouble: str, outage_s: float
) -> None:
    async def main() -> None:
        other = Etcd(small.url, name="the one who fills it")
        traffic, work = Traffic(), Procedure("work")
        work.step(name="do")(traffic.step)
        etcd = Etcd(small.url, name="etcd", prefix="work/", timeout_s=1.0)
        system = Procedures(etcd, [work], journal_path=tmp_path / "journal")
        service, stop = Service("work"), Stop()
        system.attach(service)
        serving = asyncio.create_task(service.run(stop))
        await service.until_ready()
        submitting = asyncio.create_task(traffic.submit(system))
        await traffic.more(10)

        await begin(trouble, small, other)
        before = len(traffic.accepted)
        await asyncio.sleep(outage_s)
        meanwhile = len(traffic.accepted) - before
        await end(trouble, small, other)
        accepted_s, ended_s = await traffic.more()
        await traffic.more(10)

        traffic.is_over = True
        await submitting
        assert [await handle.wait(60.0) for handle in traffic.accepted] == [handle.key for handle in traffic.accepted]
        counts = await system.store.counts()
        stop.fire("the test is over")
        assert await serving == 0
        await other.close()
        assert set(traffic.ended.values()) == {1}, "each once, as if nothing had been"
        assert counts.held == {("work", ProcedureState.DONE.value): len(traffic.ended)}
        # One whose answer was lost may have been made all the same; it has the handle that its refusal named.
        assert traffic.ended.keys() >= {handle.key for handle in traffic.accepted}
        assert traffic.refusals, "the caller was told, not left waiting"
        if trouble == "full":
            assert set(traffic.refusals) == {NOSPACE}
        print(  # noqa: T201 - the figures of a long round
            f"\netcd {trouble} for {outage_s:g} s: accepted again after {accepted_s:.2f} s, ended after {ended_s:.2f} s; "
            f"{len(traffic.accepted)} accepted ({meanwhile} meanwhile), refused {dict(traffic.refusals)}"
        )

    run_async(main, limit_s=outage_s + 90.0)


@pytest.mark.expected_logs
@pytest.mark.parametrize("trouble", ["stopped", "frozen"])
def test_a_stop_while_etcd_is_away_keeps_what_is_finished(
    small: EtcdServer, run_async: RunAsync, tmp_path: Path, trouble: str
) -> None:
    """The steps end while etcd is away, then the service stops; the next one records each outcome once, and repeats none."""
    other = Etcd(small.url, name="nobody else")
    ended: Counter[str] = Counter()
    ids: list[str] = []

    async def service_of(step_s: float) -> tuple[Procedures, Stop, asyncio.Task[int]]:
        work = Procedure("work")

        @work.step
        async def do(run: Run) -> str:
            await asyncio.sleep(step_s)
            ended[run.key] += 1
            return run.key

        system = Procedures(Etcd(small.url, name="etcd", prefix="work/"), [work], journal_path=tmp_path / "journal")
        service, stop = Service("work", deadline_s=3.0), Stop()
        system.attach(service)
        serving = asyncio.create_task(service.run(stop))
        await service.until_ready()
        return system, stop, serving

    async def first() -> None:
        system, stop, serving = await service_of(1.0)
        handles = await asyncio.gather(*(system.submit("work", f"{n}") for n in range(10)))
        ids.extend(handle.id for handle in handles)
        while any(record is None or record.state is not ProcedureState.RUNNING for record in await system.store.find(ids)):
            await asyncio.sleep(0.01)
        await begin(trouble, small, other)
        while len(ended) < len(ids):
            await asyncio.sleep(0.01)
        stop.fire("the test says so")
        assert await serving == 0, "within its deadline"
        await end(trouble, small, other)

    async def second() -> None:
        system, stop, serving = await service_of(0.0)
        assert [await system.wait(each, 30.0) for each in ids] == [f"{n}" for n in range(10)]
        stop.fire("the test is over")
        assert await serving == 0

    run_async(first)
    run_async(second)
    assert set(ended.values()) == {1}
