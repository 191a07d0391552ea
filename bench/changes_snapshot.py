"""The rate of reading what is there first, against PostgreSQL's own subscription: the same rows between the same servers.

    python bench/changes_snapshot.py                    # 1,000,000 rows of about 60 bytes; median of 3 rounds
    python bench/changes_snapshot.py --rows 100000 --rounds 1 --json

Both copy into an empty table with a primary key on a second server, over the same machine, one after the other in each round.
The clock runs from the start of the stream, or CREATE SUBSCRIPTION, until the sink, or the catalogue, has the copy whole.
A subscription copies each table by one process; the stream cuts it into ranges that go on after an interruption, and
commits where it stands with every batch. Nothing is promised: the figure is what that costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from contextlib import ExitStack, suppress

import psycopg

from outlast import Stop, Stopping
from outlast.changes import Changes, PostgresSink, SourcePolicy
from outlast.postgres import Postgres
from outlast.testing import PostgresServer

TABLE = "CREATE TABLE person (id bigint PRIMARY KEY, hash text, mail text, at timestamptz)"
ROW = "n, md5(n::text), 'person-' || n || '@example.org', now()"


def streamed(source: PostgresServer, target: PostgresServer, workers: int) -> float:
    """Return the seconds until the stream goes on from where the copy ends."""

    async def main() -> float:
        here = Postgres(source.dsn("shop"))
        sink = PostgresSink(Postgres(target.dsn("shop"), name="target"))
        policy = SourcePolicy(snapshot=True, snapshot_workers=workers)
        changes = Changes(here, "person", slot="streamed", sink=sink, source=policy)
        stop = Stop()
        began_at = time.perf_counter()
        running = asyncio.create_task(changes.run(stop))
        while not changes.link.sessions:
            if running.done():
                await running
            await asyncio.sleep(0.005)
        took_s = time.perf_counter() - began_at
        stop.fire("it is whole")
        with suppress(Stopping):
            await running
        await here.close()
        await sink.db.close()
        return took_s

    return asyncio.run(main())


def subscribed(source: PostgresServer, target: PostgresServer) -> float:
    """Return the seconds until the subscription says that the table is ready."""
    with psycopg.connect(target.dsn("shop"), autocommit=True) as conn:
        began_at = time.perf_counter()
        conn.execute(f"CREATE SUBSCRIPTION sub CONNECTION '{source.dsn('shop')}' PUBLICATION person".encode())
        while conn.execute("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'").fetchone() != (1,):
            time.sleep(0.005)
        took_s = time.perf_counter() - began_at
        conn.execute("DROP SUBSCRIPTION sub")
    return took_s


def measure(rows: int, rounds: int, workers: int) -> dict[str, float]:
    """Measure the rows a second of both, the medians over the rounds, and the ratio."""
    seen: dict[str, list[float]] = {"subscription": [], "snapshot": []}
    with ExitStack() as stack:
        source, target = (stack.enter_context(PostgresServer(settings={"wal_level": "logical"})) for _ in range(2))
        for server in (source, target):
            with psycopg.connect(server.dsn(), autocommit=True) as conn:
                conn.execute("CREATE DATABASE shop")
            with psycopg.connect(server.dsn("shop"), autocommit=True) as conn:
                conn.execute(TABLE.encode())
        with psycopg.connect(source.dsn("shop"), autocommit=True) as conn:
            conn.execute(f"INSERT INTO person SELECT {ROW} FROM generate_series(1, {rows}) AS n".encode())
            conn.execute("VACUUM ANALYZE person")
            conn.execute("CREATE PUBLICATION person FOR TABLE person")
        for _ in range(rounds):
            for name, values in seen.items():
                with psycopg.connect(target.dsn("shop"), autocommit=True) as conn:
                    conn.execute("TRUNCATE person; DROP SCHEMA IF EXISTS outlast CASCADE")
                took_s = subscribed(source, target) if name == "subscription" else streamed(source, target, workers)
                with psycopg.connect(target.dsn("shop"), autocommit=True) as conn:
                    if conn.execute("SELECT count(*) FROM person").fetchone() != (rows,):
                        sys.exit(f"bench: {name} copied other rows than there are")
                with psycopg.connect(source.dsn("shop"), autocommit=True) as conn:
                    conn.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
                values.append(rows / took_s)
                print(f"    {name} {values[-1]:,.0f} rows/s", file=sys.stderr, flush=True)
    ratio = statistics.median(a / b for a, b in zip(seen["snapshot"], seen["subscription"], strict=True))
    return {f"{name}_rows_s": statistics.median(values) for name, values in seen.items()} | {"times_subscription": ratio}


def main() -> int:
    parser = argparse.ArgumentParser(description="How fast a stream reads what is there first, against a subscription.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    figures = measure(given.rows, given.rounds, given.workers)
    if given.json:
        print(json.dumps(figures, indent=2))
    else:
        both = ", ".join(f"{name} {figures[f'{name}_rows_s']:,.0f} rows/s" for name in ("subscription", "snapshot"))
        print(f"{both}: {figures['times_subscription']:.2f} x the subscription")
    return 0


if __name__ == "__main__":
    sys.exit(main())
