"""Owners that are killed, cut off and frozen, and the standby that takes over: real processes, a real server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import outlast
from outlast.postgres import Postgres
from outlast.postgres.ownership._epochs import FencedError
from outlast.postgres.ownership._standby import BEAT_S, Standby, StandbyState
from outlast.postgres.replication import Keepalive
from outlast.postgres.sessions import lock_holder
from outlast.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from conftest import RunAsync

MEMBER = Path(__file__).with_name("standby_member.py")
TABLE = "CREATE TABLE ownership (id bigserial PRIMARY KEY, epoch bigint, pid int, at timestamptz DEFAULT clock_timestamp())"
BACKWARDS = "SELECT count(*) FROM (SELECT epoch < lag(epoch) OVER (ORDER BY id) AS back FROM ownership) AS o WHERE back"


class Member:
    """A process that runs standby_member.py, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, word: str) -> tuple[float, list[str]]:
        """Wait for a word; gives when it was said, in seconds of the monotonic clock, and what stood beside it."""
        assert self.process.stdout is not None
        while True:
            words = (await self.process.stdout.readline()).decode().split()
            assert words, f"the member ended before it said {word!r}"
            if words[0] == word:
                return int(words[-1]) / 1e9, words[1:-1]

    def signal(self, number: int) -> float:
        """Send a signal; gives the time, on the same clock."""
        at = time.monotonic()
        self.process.send_signal(number)
        return at


@contextlib.asynccontextmanager
async def member(dsn: str, name: str = "shop") -> AsyncIterator[Member]:
    process = await asyncio.create_subprocess_exec(sys.executable, MEMBER, dsn, name, stdout=asyncio.subprocess.PIPE)
    try:
        yield Member(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def owning_and_standing_by(dsn: str, owner_dsn: str = "") -> AsyncIterator[tuple[Member, Member]]:
    async with member(owner_dsn or dsn) as owner:
        await owner.says("owner")
        async with member(dsn) as following:
            await stands_by(dsn)
            yield owner, following


async def stands_by(dsn: str, name: str = "shop", count: int = 1) -> None:
    """Return when so many wait for the lock in the server."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        while True:
            row = await (await conn.execute(query, (f"outlast standby {name}",))).fetchone()
            if row == (count,):
                return
            await asyncio.sleep(0.01)


def ask(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_killed_owner_is_followed(database: str, run_async: RunAsync, capsys: pytest.CaptureFixture[str], rounds: int) -> None:
    ask(database, TABLE)
    waits: list[float] = []

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            owner = await stack.enter_async_context(member(database))
            await owner.says("owner")
            for round_number in range(rounds):
                following = await stack.enter_async_context(member(database))
                await following.says("waiting")
                await stands_by(database)
                killed_at = owner.signal(signal.SIGKILL)
                took_over_at, (epoch,) = await following.says("owner")
                assert int(epoch) == round_number + 2
                waits.append(took_over_at - killed_at)
                owner = following

    run_async(main, limit_s=120)
    with capsys.disabled():
        ms = [1000 * wait for wait in waits]
        spread = f"{min(ms):.1f} to {max(ms):.1f} in {rounds} rounds"
        sys.stdout.write(f"\ntakeover after kill -9: median {statistics.median(ms):.1f} ms, {spread}\n")
    assert ask(database, BACKWARDS) == 0, "two owned it at a time"


def test_an_owner_whose_link_is_cut_is_followed_within_the_keepalive(
    database: str, run_async: RunAsync, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(database, TABLE)
    seconds: list[float] = []

    async def main() -> None:
        async with owning_and_standing_by(database) as (owner, following):
            owner.signal(signal.SIGUSR1)
            cut_at, _ = await owner.says("cut")
            took_over_at, _ = await following.says("owner")
            seconds.append(took_over_at - cut_at)
            # The one that was cut off knows by itself as well: its own side watches, too.
            await owner.says("lost")

    run_async(main)
    with capsys.disabled():
        sys.stdout.write(f"\ntakeover after a cut link: {seconds[0]:.2f} s, keepalive {Keepalive().total_s} s\n")
    assert ask(database, BACKWARDS) == 0


@contextlib.contextmanager
def proxied(dsn: str) -> Iterator[tuple[FaultProxy, str]]:
    """A proxy that goes on answering for whoever is behind it, as TCP sees it: "blackhole"."""
    known = conninfo_to_dict(dsn)
    with FaultProxy(str(known["host"]), int(known["port"] or 5432)) as proxy:
        yield proxy, make_conninfo(dsn, host="127.0.0.1", port=proxy.port)


def test_an_owner_that_a_proxy_answers_for_is_followed_as_soon(
    database: str, run_async: RunAsync, capsys: pytest.CaptureFixture[str]
) -> None:
    """TCP is content on both sides. It was writing, so that the next one has to wait for its transaction, too."""
    ask(database, TABLE)
    seconds: list[float] = []

    async def main() -> None:
        with proxied(database) as (proxy, behind):
            async with owning_and_standing_by(database, owner_dsn=behind) as (owner, following):
                proxy.mode = "blackhole"
                cut_at = time.monotonic()
                lost_at, _ = await owner.says("lost")
                took_over_at, _ = await following.says("owner")
                seconds.extend((took_over_at - cut_at, lost_at - cut_at))
                # What it had written, and the proxy kept, comes too late.
                proxy.mode = "pass"
                await asyncio.sleep(0.5)

    run_async(main)
    with capsys.disabled():
        sys.stdout.write(f"\ntakeover behind a proxy: {seconds[0]:.2f} s, known to the owner after {seconds[1]:.2f} s\n")
    assert ask(database, BACKWARDS) == 0


def test_a_lock_that_passes_to_one_who_is_gone_passes_on(database: str, run_async: RunAsync) -> None:
    """The next in the queue is behind a proxy that answers for it: it never learns that it owns."""
    ask(database, TABLE)

    async def main() -> None:
        with proxied(database) as (proxy, behind):
            async with member(database) as owner:
                await owner.says("owner")
                async with member(behind):
                    await stands_by(database)
                    async with member(database) as last:
                        await stands_by(database, count=2)
                        proxy.mode = "blackhole"
                        owner.signal(signal.SIGKILL)
                        # TCP alone would let it wait for a quarter of an hour.
                        await last.says("owner")

    run_async(main)
    assert ask(database, BACKWARDS) == 0


def test_an_owner_that_stands_still_for_too_long_is_followed_and_fenced(database: str, run_async: RunAsync) -> None:
    """Nobody has to end its session: neither that of the lock nor the one it was writing in."""
    ask(database, TABLE)

    async def main() -> None:
        async with owning_and_standing_by(database) as (owner, following):
            owner.signal(signal.SIGSTOP)
            await following.says("owner")
            owner.signal(signal.SIGCONT)
            assert await owner.process.wait() == 0

    run_async(main)
    assert ask(database, BACKWARDS) == 0


def block(seconds: float) -> None:
    """Keep the event loop from turning."""
    time.sleep(seconds)


def test_an_event_loop_that_is_blocked_for_less_than_the_keepalive_keeps_the_lock(database: str, run_async: RunAsync) -> None:
    keepalive = Keepalive(interval_s=2, count=1)

    async def main() -> None:
        db = Postgres(database)
        async with Standby(db, "shop", keepalive=keepalive) as lost:
            for _ in range(2):
                # It may have asked just before, or not for half a second.
                block(keepalive.total_s - 1.0)
                await asyncio.sleep(1.2 * BEAT_S)
            assert not lost.done()
            block(keepalive.total_s + 2 * BEAT_S)
            assert (await lost).code == "lock lost"
        await db.close()

    run_async(main)


def test_who_was_away_does_not_take_that_for_the_silence_of_the_server(
    database: str, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server that does not know idle sessions the owner goes on as such."""
    monkeypatch.setattr("outlast.postgres.ownership._standby.SILENCE_SINCE", 10**9)
    keepalive = Keepalive(interval_s=1, count=1)

    async def main() -> None:
        db = Postgres(database)
        async with Standby(db, "shop", keepalive=keepalive) as lost:
            block(keepalive.total_s + 2 * BEAT_S)
            await asyncio.sleep(2 * BEAT_S)
            assert not lost.done()
        await db.close()

    run_async(main)


def test_one_line_when_it_stands_by_and_one_when_it_takes_over(
    database: str, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        first_db, second_db = Postgres(database), Postgres(database)
        first, second = Standby(first_db, "shop", owner="first"), Standby(second_db, "shop", owner="second")
        async with first:
            assert (first.state, first.epoch) == (StandbyState.OWNER, 1)
            # A loop that its supervisor restarts: it enters anew each time, and says nothing new.
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2), second:
                        pytest.fail("there are two owners")
                assert second.state is StandbyState.IDLE
            waiting = asyncio.ensure_future(second.__aenter__())
            # Those that gave up waiting are gone from the server as well.
            await stands_by(database)
        lost = await waiting
        assert (second.state, second.epoch) == (StandbyState.OWNER, 2)
        assert not lost.done()
        async with second_db.connection() as conn:
            await second.fence(conn)
        async with first_db.connection() as conn:
            with pytest.raises(FencedError, match="our epoch 1 is over, it is epoch 2 of second"):
                await first.fence(conn)
        await second.__aexit__(None, None, None)
        await first_db.close()
        await second_db.close()

    with caplog.at_level(logging.INFO, "outlast"):
        run_async(main)
    lines = [record.getMessage() for record in caplog.records if record.name == "outlast.postgres"]
    assert len(lines) == 3, lines
    assert lines[0] == "shop: taken over, epoch 1"
    assert lines[1].startswith("shop: standing by, it belongs to pid ")
    assert "outlast standby shop" in lines[1]
    assert "since 20" in lines[1]
    assert lines[2] == "shop: taken over, epoch 2"


@pytest.mark.short
def test_a_stop_ends_the_waiting_at_once(database: str, run_async: RunAsync) -> None:
    async def main() -> None:
        db, stop = Postgres(database), outlast.Stop()
        async with Standby(db, "shop"):
            waiting = Standby(db, "shop", stop=stop)
            task = asyncio.ensure_future(waiting.__aenter__())
            await stands_by(database)
            stop.fire("test")
            with pytest.raises(outlast.Stopping):
                await task
            assert waiting.state is StandbyState.IDLE
            # The server looks once a second whether those who wait are there.
            await stands_by(database, count=0)
        await db.close()

    run_async(main)


@pytest.mark.short
def test_a_lost_session_is_told_at_once(database: str, run_async: RunAsync, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        db = Postgres(database)
        told: list[outlast.Fault] = []
        standby = Standby(db, "shop", on_lost=told.append)
        for epoch in (1, 2):
            async with standby as lost:
                assert standby.epoch == epoch
                async with db.connection() as conn:
                    who = await lock_holder(conn, standby.key)
                    assert who is not None
                    await conn.execute("SELECT pg_terminate_backend(%s)", (who.pid,))
                fault = await lost
                assert told == [fault] * epoch or told[-1] == fault
                assert fault.code == "lock lost"
                assert standby.state is StandbyState.LOST
        assert db.state is outlast.State.UP
        await db.close()

    run_async(main)


def test_nothing_is_asked_while_it_waits(database: str, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(database)
        async with Standby(db, "shop"):
            task = asyncio.ensure_future(Standby(db, "shop").__aenter__())
            await stands_by(database)
            waiting = "application_name = 'outlast standby shop' AND wait_event_type = 'Lock'"
            query = f"SELECT max(query_start) FROM pg_stat_activity WHERE {waiting}"
            before = await asyncio.to_thread(ask, database, query)
            assert before is not None
            await asyncio.sleep(2.5)
            assert await asyncio.to_thread(ask, database, query) == before
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await db.close()

    run_async(main)


def test_the_next_owner_waits_for_the_last_ones_transaction(database: str, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Postgres(database)
        first, second = Standby(db, "shop"), Standby(db, "shop")
        async with db.connection() as conn:
            async with first:
                await first.fence(conn)
                await conn.execute("CREATE TABLE written (epoch bigint)")
            # The lock is free, the transaction is open: nobody may begin before it has ended.
            task = asyncio.ensure_future(second.__aenter__())
            await stands_by(database)
            assert not task.done()
        await task
        assert second.epoch == 2
        await second.__aexit__(None, None, None)
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            with pytest.raises(RuntimeError, match="needs a transaction"):
                await second.fence(conn)
        await db.close()

    run_async(main)
