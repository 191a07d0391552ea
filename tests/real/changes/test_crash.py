"""Consumers, sources and sinks that are killed and cut off under load: no change is lost, and none is applied twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from outlast.postgres.ownership._standby import lock_key
from outlast.postgres.replication import Keepalive
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKER = Path(__file__).with_name("change_worker.py")
LOGICAL = {"wal_level": "logical", "max_connections": "100"}
TABLE = "CREATE TABLE item (id bigint PRIMARY KEY, name text, amount numeric)"
WATCHED = """
CREATE TABLE applied (number bigserial, id bigint, pid int DEFAULT pg_backend_pid());
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO applied (id) VALUES (NEW.id); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION note();
"""
"""On the side of the sink: each row that was applied, by whom, in the order of the commits."""
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('application_name') NOT LIKE 'outlast sink%' THEN PERFORM pg_sleep(0.5); END IF; RETURN NULL;
END $$;
CREATE TRIGGER slow AFTER INSERT ON item FOR EACH STATEMENT EXECUTE FUNCTION slow()
"""
"""On the side of the sink: a batch of the snapshot takes as long as on a machine with real disks, and the kills meet it."""


def ask(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as conn:
        cursor = conn.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


class Line:
    """One line that a worker told: who, when, what."""

    def __init__(self, text: str) -> None:
        pid, at_ns, self.word, *self.rest = text.split()
        self.pid, self.at = int(pid), int(at_ns) / 1e9


class Shop:
    """A source, a warehouse, worker processes between them, and a writer that outlasts outages."""

    def __init__(self, source: PostgresServer, warehouse: PostgresServer, directory: Path) -> None:
        self.source, self.warehouse, self.directory = source, warehouse, directory
        self.workers: list[subprocess.Popen[bytes]] = []
        self.written = 0
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._writer: threading.Thread | None = None
        ask(source.dsn(), TABLE)
        ask(warehouse.dsn(), "CREATE DATABASE warehouse")
        ask(self.sink_dsn, TABLE)

    @property
    def sink_dsn(self) -> str:
        return self.warehouse.dsn("warehouse")

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        told = {"WORKER_DSN": self.source.dsn(), "WORKER_SINK_DSN": self.sink_dsn, "WORKER_TOLD": str(self.directory / "told")}
        with (self.directory / "stderr").open("ab") as stderr:
            worker = subprocess.Popen([sys.executable, WORKER], env={**os.environ, **told, **environment}, stderr=stderr)
        self.workers.append(worker)
        return worker

    def told(self) -> list[Line]:
        file = self.directory / "told"
        return [Line(text) for text in file.read_text(encoding="ascii").splitlines()] if file.exists() else []

    def until(self, condition: Callable[[], Any], limit_s: float = 90.0, pause_s: float = 0.005) -> Any:
        end = time.monotonic() + limit_s
        while not (found := condition()):
            if time.monotonic() > end or self.errors:
                said = (self.directory / "stderr").read_text(encoding="utf-8")[-4000:]
                missing = self.differences()
                pytest.fail(f"it did not come about in time: {self.errors}, {len(missing)} rows differ: {missing[:5]}\n{said}")
            time.sleep(pause_s)
        return found

    def owned(self, pid: int) -> Line:
        line: Line = self.until(lambda: next((line for line in self.told() if line.pid == pid and line.word == "first"), None))
        return line

    def streams(self) -> None:
        """Return when the slot is read: what is written before there is one is not in the stream."""
        self.until(lambda: ask(self.source.dsn(), "SELECT 1 FROM pg_replication_slots WHERE active"))

    def stands_by(self) -> None:
        key = lock_key("shop")
        waiting = (
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            f" AND classid = (({key} >> 32) & 4294967295)::oid AND objid = ({key} & 4294967295)::oid"
        )
        self.until(lambda: ask(self.source.dsn(), waiting))

    def write(self, statement: Callable[[int], tuple[str, tuple[Any, ...]]], pause_s: float) -> None:
        """Begin to write in a thread; what an outage interrupts is not repeated."""

        def work() -> None:
            number = 0
            while not self._stop.is_set():
                with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.source.dsn(), autocommit=True) as conn:
                    while not self._stop.wait(pause_s):
                        number += 1
                        query, values = statement(number)
                        conn.execute(query.encode(), values)
                        self.written += 1
                self._stop.wait(0.02)

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - the test asks for it
                self.errors.append(error)

        self._writer = threading.Thread(target=guarded, daemon=True)
        self._writer.start()

    def stop_writing(self) -> None:
        self._stop.set()
        if self._writer is not None:
            self._writer.join()
        assert not self.errors

    def position(self) -> str:
        """How far the sink is; both servers are there."""
        try:
            found = ask(self.sink_dsn, "SELECT lsn::text FROM outlast.change_positions")
        except psycopg.errors.UndefinedTable:
            found = []
        return str(found[0][0]) if found else "0/0"

    def gets_beyond(self, position: str) -> None:
        """Return when the sink has committed something behind this position."""
        query = f"SELECT 1 FROM outlast.change_positions WHERE lsn > '{position}'".encode()
        with psycopg.connect(self.sink_dsn, autocommit=True, connect_timeout=5) as conn:

            def beyond() -> bool:
                with contextlib.suppress(psycopg.errors.UndefinedTable):
                    return conn.execute(query).fetchone() is not None
                return False

            self.until(beyond)

    def same(self) -> bool:
        return not self.differences()

    def differences(self) -> list[tuple[Any, ...]]:
        """Rows that only one side has, with the side; none while a server is away."""
        rows = "SELECT id, name, amount FROM item"
        source, sink = set(ask(self.source.dsn(), rows)), set(ask(self.sink_dsn, rows))
        return sorted([("source", *row) for row in source - sink] + [("sink", *row) for row in sink - source])


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with PostgresServer(settings=LOGICAL) as source, PostgresServer(settings={"max_connections": "100"}) as warehouse:
        shop = Shop(source, warehouse, tmp_path)
        try:
            yield shop
        finally:
            shop._stop.set()
            for worker in shop.workers:
                worker.kill()
                worker.wait()


def insert(number: int) -> tuple[str, tuple[Any, ...]]:
    return "INSERT INTO item VALUES (%s, %s, %s)", (number, f"item {number}", number)


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.long)])
def test_owners_are_killed_under_load(shop: Shop, capsys: pytest.CaptureFixture[str], rounds: int) -> None:
    """Killed with -9: the standby streams its first change, nothing is lost, nothing comes twice, and never do two own it."""
    ask(shop.sink_dsn, WATCHED)
    owner = shop.start()
    shop.streams()
    shop.write(insert, 0.003)
    shop.owned(owner.pid)
    waits: list[float] = []
    for _ in range(rounds):
        following = shop.start()
        shop.stands_by()
        killed_at = time.monotonic()
        owner.kill()
        owner.wait()
        waits.append(shop.owned(following.pid).at - killed_at)
        owner = following
    shop.stop_writing()
    shop.until(shop.same)
    ms = [1000 * wait for wait in waits]
    with capsys.disabled():
        sys.stdout.write(
            f"\nowner killed: first change of the next after {statistics.median(ms):.0f} ms (median of {rounds}, "
            f"{min(ms):.0f} to {max(ms):.0f}), {shop.written} transactions meanwhile\n"
        )
    applied = ask(shop.sink_dsn, "SELECT id, pid FROM applied ORDER BY number")
    assert sorted(row[0] for row in applied) == sorted(row[0] for row in ask(shop.source.dsn(), "SELECT id FROM item"))
    pids = [row[1] for row in applied]
    turns = [pid for pid, before in zip(pids, [None, *pids], strict=False) if pid != before]
    assert len(turns) == len(set(turns)), "two owned it at a time"
    epochs = [int(line.rest[0]) for line in shop.told() if line.word == "owner"]
    assert epochs == sorted(set(epochs))


def test_an_owner_that_is_cut_off_is_followed(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """No packet reaches it any more; nobody tells the servers. Its own side notices, and it stands by when it is back."""
    ask(shop.sink_dsn, WATCHED)
    owner = shop.start()
    shop.streams()
    shop.write(insert, 0.005)
    shop.owned(owner.pid)
    following = shop.start()
    shop.stands_by()
    owner.send_signal(signal.SIGUSR1)
    cut: Line = shop.until(lambda: next((line for line in shop.told() if line.word == "cut"), None))
    wait_s = shop.owned(following.pid).at - cut.at
    shop.stands_by()
    shop.stop_writing()
    shop.until(shop.same)
    with capsys.disabled():
        sys.stdout.write(f"\nowner cut off: first change of the next after {wait_s:.2f} s; keepalive {Keepalive().total_s} s\n")
    applied = [row[0] for row in ask(shop.sink_dsn, "SELECT id FROM applied ORDER BY number")]
    assert applied == sorted(set(applied)), "each once, in order"


def test_what_was_confirmed_outlasts_a_crash_of_a_sink_that_does_not_wait_for_its_log(shop: Shop) -> None:
    """Else the crash takes back what the source has forgotten: synchronous_commit may be off for a role or a database."""
    ask(shop.warehouse.dsn(), "ALTER DATABASE warehouse SET synchronous_commit = off")
    ask(shop.warehouse.dsn(), "ALTER SYSTEM SET wal_writer_delay = '10s'")
    ask(shop.warehouse.dsn(), "SELECT pg_reload_conf()")
    shop.start()
    shop.streams()
    ask(shop.source.dsn(), "INSERT INTO item VALUES (1, 'one', 1)")
    ((written,),) = ask(shop.source.dsn(), "SELECT pg_current_wal_lsn()::text")
    confirmed = f"SELECT 1 FROM pg_replication_slots WHERE slot_name = 'shop' AND confirmed_flush_lsn >= '{written}'"
    shop.until(lambda: ask(shop.source.dsn(), confirmed))
    shop.warehouse.kill()
    shop.warehouse.start()
    ask(shop.source.dsn(), "INSERT INTO item VALUES (2, 'two', 2)")
    shop.until(lambda: ask(shop.sink_dsn, "SELECT 1 FROM item WHERE id = 2"))
    assert shop.same()


TARGETS = ("consumer", "source", "sink")


def kill_at_random(shop: Shop, rng: random.Random, **environment: str) -> str:
    """Kill the newest worker, or one of the servers, and start it again; gives which it was."""
    target = rng.choice(TARGETS)
    if target == "consumer":
        shop.workers[-1].kill()
        shop.workers[-1].wait()
        shop.start(**environment)
    else:
        server = shop.source if target == "source" else shop.warehouse
        server.kill(backends=rng.random() < 0.7)
        time.sleep(rng.uniform(0.0, 0.1))
        server.start()
    return target


def seeded(name: str) -> int:
    """A seed of its own for each run; the environment gives one to repeat what it decided."""
    return int(os.environ.get(name) or random.SystemRandom().randrange(1_000_000))


def changing(writing: random.Random) -> Callable[[int], tuple[str, tuple[Any, ...]]]:
    def change(number: int) -> tuple[str, tuple[Any, ...]]:
        key = writing.randrange(2_000)
        kind = writing.random()
        if kind < 0.6:
            statement = "INSERT INTO item VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET amount = excluded.amount"
            return statement, (key, f"item {number}", number)
        if kind < 0.8:
            return "UPDATE item SET name = %s WHERE id = %s", (f"again {number}", key)
        if kind < 0.9:
            return "UPDATE item SET amount = -amount WHERE id BETWEEN %s AND %s", (key, key + 50)
        return "DELETE FROM item WHERE id = %s", (key,)

    return change


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.long)])
def test_a_hundred_kills_of_consumer_source_and_sink(shop: Shop, capsys: pytest.CaptureFixture[str], kills: int) -> None:
    """At random, under load, each once the stream has got further since the last: in the end the tables are the same, row by row.

    Now and then a second kill follows at once, and meets what the first has begun.
    """
    seed = seeded("OUTLAST_TEST_KILLS_SEED")
    rng = random.Random(seed)
    shop.start()
    shop.streams()
    # No faster than it is carried over on a busy machine: what is measured at the end is no backlog.
    shop.write(changing(random.Random(seed)), 0.02)
    reached, counts, at_once = shop.position(), dict.fromkeys(TARGETS, 0), 0
    for _ in range(kills):
        shop.gets_beyond(reached)
        time.sleep(rng.uniform(0.0, 0.1))
        target = kill_at_random(shop, rng)
        if rng.random() < 0.3:
            target = kill_at_random(shop, rng)
            at_once += 1
        counts[target] += 1
        reached = shop.position()
    killed_at = time.monotonic()
    shop.gets_beyond(reached)
    further_s = time.monotonic() - killed_at
    shop.stop_writing()
    # Seldom: to compare two tables takes the stream's processor time.
    shop.until(shop.same, 300.0, 0.2)
    same_s = time.monotonic() - killed_at
    sessions = sum(line.word == "first" for line in shop.told())
    with capsys.disabled():
        sys.stdout.write(
            f"\nkills: {counts}, {at_once} of them the second at once (seed {seed}); {shop.written} transactions, "
            f"{sessions} sessions that streamed; after the last kill further in {further_s:.1f} s, the same in {same_s:.1f} s\n"
        )
    # After these two nothing comes into the sink but by a new session.
    assert sessions > counts["consumer"] + counts["sink"]
    ((streams, lsn, epoch),) = ask(shop.sink_dsn, "SELECT count(*), max(lsn) > '0/0', max(epoch) FROM outlast.change_positions")
    assert (streams, lsn) == (1, True)
    assert epoch == ask(shop.source.dsn(), "SELECT epoch FROM outlast.epochs")[0][0]


@pytest.mark.parametrize(("kills_max", "rows"), [(4, 50_000), pytest.param(12, 150_000, marks=pytest.mark.long)])
def test_kills_while_the_tables_are_read_first(shop: Shop, capsys: pytest.CaptureFixture[str], kills_max: int, rows: int) -> None:
    """The same while the rows that were there before are read, by two at a time, and others write and change keys."""
    seed = seeded("OUTLAST_TEST_KILLS_SEED")
    rng, writing = random.Random(seed), random.Random(seed)

    def change(number: int) -> tuple[str, tuple[Any, ...]]:
        key = writing.randrange(200_000)
        match writing.randrange(4):
            case 0:
                return "UPDATE item SET id = id + 1000000 WHERE id = %s", (key,)
            case 1:
                return "UPDATE item SET id = id - 1000000, amount = amount + 1 WHERE id >= 1000000 AND id %% 7 = %s", (key % 7,)
            case 2:
                return "DELETE FROM item WHERE id = %s", (key,)
            case _:
                insert = "INSERT INTO item VALUES (%s, 'new', %s) ON CONFLICT (id) DO UPDATE SET amount = excluded.amount"
                return insert, (key, number)

    def is_due() -> bool:
        try:
            return not ask(shop.sink_dsn, "SELECT 1 FROM outlast.change_positions WHERE lsn > '0/0'")
        except psycopg.errors.UndefinedTable:
            return True

    ask(shop.source.dsn(), f"INSERT INTO item SELECT i, repeat('x', 300) || i, i FROM generate_series(1, {rows}) AS i")
    ask(shop.source.dsn(), "ANALYZE item")
    ask(shop.sink_dsn, SLOW)
    shop.write(change, 0.005)
    shop.start(WORKER_SNAPSHOT="yes")
    kills = 0
    while kills < kills_max and is_due():
        time.sleep(rng.uniform(0.0, 1.5))
        kill_at_random(shop, rng, WORKER_SNAPSHOT="yes")
        kills += 1
    shop.until(lambda: not is_due())
    shop.stop_writing()
    shop.until(shop.same)
    sessions = sum(line.word == "owner" for line in shop.told())
    with capsys.disabled():
        sys.stdout.write(f"\nread first: {kills} kills (seed {seed}), {sessions} owners, {shop.written} transactions meanwhile\n")
    assert kills >= 3, "it was over too soon: nothing was tested"
