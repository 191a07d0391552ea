"""One prober, many waiters, a ramp: the shell of a dependency in virtual time."""

from __future__ import annotations

import asyncio
import random
import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast._core.health import HealthPolicy
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs


class Database:
    """A fake with a switch, that counts how often it is asked."""

    def __init__(self) -> None:
        self.up = True
        self.asked: list[float] = []

    async def ask(self) -> None:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.001)
        if not self.up:
            raise ConnectionRefusedError(111, "connection refused")


def dependency(database: Database, **options: Any) -> outlast.Dependency:
    return outlast.Dependency("db", probe=database.ask, rng=random.Random(7), **options)


async def fail(db: outlast.Dependency) -> None:
    with pytest.raises(ConnectionRefusedError):
        async with db.use():
            raise ConnectionRefusedError(111, "connection refused")


def peak(times: list[float], window_s: float) -> int:
    return max(sum(1 for other in times if at <= other < at + window_s) for at in times)


@pytest.mark.parametrize(("waiters", "length_s"), [(50, 0.5), (100, 1.0), (1_000, 2.0)])
def test_waiters_are_released_over_a_ramp(waiters: int, length_s: float) -> None:
    async def main() -> tuple[list[float], int]:
        loop, database = asyncio.get_running_loop(), Database()
        db, released = dependency(database), []
        database.up = False
        await fail(db)

        async def wait() -> None:
            await db.ready()
            released.append(loop.time())

        tasks = [asyncio.create_task(wait()) for _ in range(waiters)]
        await asyncio.sleep(60)
        assert released == []
        probes = len(database.asked)
        database.up = True
        await asyncio.gather(*tasks)
        assert len(database.asked) == probes + 1, "one probe lets them all go"
        return released, probes

    released, probes = run_virtual(main)
    assert len(released) == waiters
    assert released[-1] - released[0] == pytest.approx(length_s, abs=0.03)
    assert peak(released, 0.0999) <= waiters / 5
    assert probes <= 100


def test_fifty_callers_at_the_half_open_moment_are_one_trial() -> None:
    """Without a probe the callers themselves find out: one at a time."""

    async def main() -> tuple[int, int]:
        db, passed, refused = outlast.Dependency("api", rng=random.Random(1)), 0, 0

        async def call() -> None:
            nonlocal passed, refused
            try:
                async with db.use():
                    passed += 1
                    await asyncio.sleep(0.05)
            except outlast.Unavailable:
                refused += 1

        with pytest.raises(TimeoutError):
            async with db.use():
                raise TimeoutError
        await asyncio.sleep(1.6)
        await asyncio.gather(*(call() for _ in range(50)))
        assert db.state is outlast.State.RECOVERING
        return passed, refused

    assert run_virtual(main) == (1, 49)


def test_a_cancelled_trial_is_no_evidence_and_its_place_is_taken_by_the_next() -> None:
    async def main() -> None:
        db = outlast.Dependency("api", rng=random.Random(1))
        with pytest.raises(TimeoutError):
            async with db.use():
                raise TimeoutError

        async def call() -> None:
            await db.ready()
            async with db.use():
                await asyncio.sleep(0.05)

        async def hang() -> None:
            await db.ready()
            async with db.use():
                await asyncio.sleep(3600)

        first = asyncio.create_task(hang())
        others = [asyncio.create_task(call()) for _ in range(10)]
        await asyncio.sleep(5)
        assert db.state is outlast.State.DOWN, "the trial is still under way"
        assert db.waiting == 10
        first.cancel()
        await asyncio.gather(*others)
        assert db.state is outlast.State.RECOVERING

    run_virtual(main)


def test_cancelled_callers_never_lose_the_probe() -> None:
    async def main() -> None:
        database = Database()
        db = dependency(database)
        database.up = False
        await fail(db)
        for _ in range(100):
            waiter = asyncio.create_task(db.ready())
            await asyncio.sleep(0.07)
            waiter.cancel()
        database.up = True
        await db.ready()
        assert db.waiting == 0
        assert len(database.asked) >= 5

    run_virtual(main)


def test_cancellation_is_no_evidence() -> None:
    async def main() -> None:
        db = dependency(Database())

        async def work() -> None:
            async with db.use():
                await asyncio.sleep(3600)

        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert db.state is outlast.State.UP

    run_virtual(main)


def test_request_handlers_are_refused_at_once_with_the_first_cause() -> None:
    async def main() -> None:
        database = Database()
        db = dependency(database)
        database.up = False
        await fail(db)
        await asyncio.sleep(12)
        with pytest.raises(outlast.Unavailable) as caught:
            async with db.use():
                pytest.fail("must not get in")
        assert caught.value.fault.code == "ECONNREFUSED"
        assert caught.value.since_s == pytest.approx(12, abs=0.1)
        assert 0.1 <= caught.value.retry_after_s <= 1.5

    run_virtual(main)


def test_ready_gives_up_at_its_timeout_and_at_the_stop() -> None:
    async def main() -> None:
        database = Database()
        db, stop = dependency(database), outlast.Stop()
        database.up = False
        await fail(db)
        with pytest.raises(outlast.Unavailable):
            await db.ready(timeout_s=3)
        waiter = asyncio.create_task(db.ready(stop=stop))
        await asyncio.sleep(1)
        stop.fire("test")
        with pytest.raises(outlast.Stopping):
            await waiter
        with pytest.raises(outlast.Stopping):
            await db.ready(stop=stop)
        assert db.waiting == 0

    run_virtual(main)


def test_the_number_of_waiters_is_bounded() -> None:
    async def main() -> None:
        database = Database()
        db = dependency(database, waiters_max=2)
        database.up = False
        await fail(db)
        waiters = [asyncio.create_task(db.ready()) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(outlast.Unavailable):
            await db.ready()
        for waiter in waiters:
            waiter.cancel()

    run_virtual(main)


def test_work_begun_before_the_recovery_is_no_evidence_against_it() -> None:
    async def main() -> None:
        database = Database()
        db = dependency(database)

        async def old() -> None:
            async with db.use():
                await asyncio.sleep(10)
                raise ConnectionResetError(104, "connection reset by peer")

        task = asyncio.create_task(old())
        await asyncio.sleep(0.1)
        await fail(db)
        await db.ready()
        assert db.state is outlast.State.RECOVERING
        with pytest.raises(ConnectionResetError):
            await task
        assert db.state is outlast.State.RECOVERING

    run_virtual(main)


def test_a_flapping_dependency_is_one_incident_of_few_sessions(caplog: pytest.LogCaptureFixture) -> None:
    """Each session lives 50 ms, for ten seconds."""

    async def main() -> int:
        loop, db = asyncio.get_running_loop(), dependency(Database())
        sessions = 0
        while loop.time() < 10:
            await db.ready()
            try:
                async with db.use():
                    sessions += 1
                    await asyncio.sleep(0.05)
                    raise ConnectionResetError(104, "connection reset by peer")
            except ConnectionResetError:
                pass
        assert db.incident.book.incidents == 1
        return sessions

    with caplog.at_level("INFO"):
        sessions = run_virtual(main)
    assert sessions <= 12
    assert len(caplog.records) <= 3


def test_success_for_half_a_second_and_then_a_cut_for_a_minute_is_one_incident_with_growing_waits() -> None:
    async def main() -> list[float]:
        loop, db = asyncio.get_running_loop(), dependency(Database())
        cuts = []
        while loop.time() < 60:
            await db.ready()
            for _ in range(5):
                async with db.use():
                    await asyncio.sleep(0.1)
            await fail(db)
            cuts.append(loop.time())
        assert db.incident.book.incidents == 1
        return [later - earlier for earlier, later in zip(cuts, cuts[1:], strict=False)]

    gaps = run_virtual(main)
    assert gaps[0] < 1.2
    assert all(gap > 2.5 for gap in gaps[5:])
    assert len(gaps) < 25


def test_sustained_health_resolves_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        db = dependency(Database())
        await fail(db)
        await db.ready()
        async with db.use():
            pass
        await asyncio.sleep(29)
        assert db.state is outlast.State.RECOVERING
        await asyncio.sleep(2)
        assert db.state is outlast.State.UP
        assert db.fault is None

    with caplog.at_level("INFO"):
        run_virtual(main)
    assert [record.message.split(" (")[0].split(":")[0] for record in caplog.records] == [
        "db is down",
        caplog.records[1].message.split(" (")[0],
        "db resolved",
    ]


def test_faults_of_a_call_trip_nothing() -> None:
    async def main() -> None:
        def judge(exc: BaseException, phase: str) -> outlast.Fault | None:
            del phase
            if isinstance(exc, LookupError):
                return outlast.Fault(outlast.Kind.REJECTED, "23505", "duplicate key")
            if isinstance(exc, ArithmeticError):
                return outlast.Fault(outlast.Kind.TRANSIENT, "40001", "serialization", scope=outlast.Scope.CALL)
            return None

        db = outlast.Dependency("db", classifiers=outlast.Classifiers([judge]))
        for error in (LookupError(), ArithmeticError(), ValueError("a bug")):
            with pytest.raises(type(error)):
                async with db.use():
                    raise error
        assert db.state is outlast.State.UP

    run_virtual(main)


def test_a_probe_that_hangs_is_a_fault() -> None:
    async def main() -> None:
        async def hang() -> None:
            await asyncio.sleep(3600)

        db = outlast.Dependency("db", probe=hang, probe_timeout_s=2.0)
        await fail(db)
        await asyncio.sleep(30)
        assert db.state is outlast.State.DOWN
        assert db.incident.book.faults >= 5

    run_virtual(main)


def test_guard_keeps_what_a_function_is_and_does() -> None:
    async def main() -> None:
        db = outlast.Dependency("db")

        @db.guard
        async def double(number: int, *, extra: int = 0) -> int:
            """Double it."""
            return 2 * number + extra

        @db.guard
        def half(number: int) -> float:
            return number / 2

        assert await double(4, extra=1) == 9
        assert half(4) == 2
        assert (double.__name__, double.__doc__) == ("double", "Double it.")
        with pytest.raises(TypeError):
            half("no")  # type: ignore[arg-type]
        assert db.state is outlast.State.UP

    run_virtual(main)


def test_listeners_hear_each_change_and_cannot_break_it(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[outlast.State]:
        heard: list[outlast.State] = []

        def broken(state: outlast.State, fault: outlast.Fault | None) -> None:
            raise ValueError(state, fault)

        db = dependency(Database())
        db.subscribe(broken)
        end = db.subscribe(lambda state, fault: heard.append(state))
        await fail(db)
        await db.ready()
        end()
        await fail(db)
        return heard

    assert run_virtual(main) == [outlast.State.DOWN, outlast.State.RECOVERING]
    assert "a listener of db failed" in caplog.text


def test_after_the_stop_nothing_is_asked() -> None:
    async def main() -> None:
        database, stop = Database(), outlast.Stop()
        db = dependency(database)
        await db.open()
        stop.on_fire(db.stopping)
        database.up = False
        await fail(db)
        await asyncio.sleep(5)
        asked = len(database.asked)
        stop.fire("test")
        await asyncio.sleep(60)
        assert len(database.asked) == asked
        with pytest.raises(outlast.Stopping):
            await db.ready()
        await db.close()

    run_virtual(main)


def test_an_adapter_says_what_counts() -> None:
    """Other exceptions that leave its blocks trip nothing, and give back the place of the trial."""

    class Api(outlast.Dependency):
        def counts(self, exc: BaseException) -> bool:
            return "api" in str(exc)

    async def main() -> None:
        api = Api("api", rng=random.Random(1))
        with pytest.raises(ConnectionResetError):
            async with api.use():
                raise ConnectionResetError("somebody else")
        assert (api.state, api.last) == (outlast.State.UP, None)
        with pytest.raises(ConnectionResetError):
            async with api.use():
                raise ConnectionResetError("the api")
        assert api.last is not None
        assert (api.state, api.last.code) == (outlast.State.DOWN, "ECONNRESET")
        await asyncio.sleep(2)
        with pytest.raises(ConnectionResetError):
            async with api.use():
                raise ConnectionResetError("somebody else")
        async with api.use():
            pass
        assert api.state is outlast.State.RECOVERING

    run_virtual(main)


def test_those_who_wonder_share_one_look() -> None:
    async def main() -> None:
        database = Database()
        db = dependency(database)
        await asyncio.gather(*(db.look() for _ in range(50)))
        assert (len(database.asked), db.state) == (1, outlast.State.UP)
        database.up = False
        await asyncio.gather(*(db.look() for _ in range(50)))
        assert (len(database.asked), db.state) == (2, outlast.State.DOWN)
        await db.look()
        assert len(database.asked) == 2, "the prober is at it"

    run_virtual(main)


def test_its_parts_import_each_other_in_one_direction() -> None:
    """Also for type checkers: no circle dependency, use, prober, blocking."""
    package = Path(outlast.__file__).parent / "_runtime" / "dependency"
    pattern = re.compile(r"from outlast\.runtime\.dependency(?:\.(\w+))? import (\w+)")
    graph = {
        path.stem: {first or second for first, second in pattern.findall(path.read_text(encoding="utf-8"))}
        for path in package.glob("*.py")
    }
    # `Dependency.blocking` makes its face when it is first asked for.
    TopologicalSorter(graph).prepare()


def test_a_dependency_needs_a_name() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        outlast.Dependency("")


def test_the_policy_can_be_changed() -> None:
    async def main() -> int:
        database = Database()
        database.up = False
        db = dependency(database, policy=HealthPolicy(probe=outlast.Backoff(10.0, 10.0)))
        await fail(db)
        await asyncio.sleep(60)
        return len(database.asked)

    assert 6 <= run_virtual(main) <= 12
