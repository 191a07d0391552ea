"""The rate of changes read from a real server: raw, decoded and given to a sink, against pg_recvlogical and the peers on PyPI.

    python bench/changes.py                      # 20,000 transactions of 10 rows, one of 200,000; median of 3 rounds
    python bench/changes.py --rounds 1 --json    # for a script

Every consumer reads the same log through a slot of its own, a copy of one that was made before the rows were written, from
a server that was started for the bench. In each round all of them follow one another, so that a slow moment of the machine
falls on everyone; the figure is the median over the rounds of the ratio to pg_recvlogical (to /dev/null) of the same round.
The clock runs from the start of the stream to the last commit, for pg_recvlogical from the start of its process to its end.

"raw" is the session alone, "decoded" the whole stream of `outlast.changes` into a sink that counts. The exit code is 1 when
raw is below 0.95 x pg_recvlogical, or decoded below 0.75 x.

The peers: psycopg 2 hands over bytes, undecoded. walbox (Python 3.13 and later) is the best maintained decoder of pgoutput with a
client of its own: asyncio, psycopg 3, transactions of dicts, here with a checkpoint in memory. Where it is not installed it is
left out, and named. bench/README.md has those that do not run, or rest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import logging
import select
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import psycopg
import psycopg2
from psycopg2.extras import LogicalReplicationConnection

from outlast import Stop, Stopping
from outlast.changes import Changes, SourcePolicy
from outlast.postgres import Postgres
from outlast.postgres.replication import Replication, format_lsn, parse_lsn
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from outlast.changes import Transaction, TransactionPart

RAW_MIN = 0.95
DECODED_MIN = 0.75
SMALL = 20_000
ROWS = 10
LARGE = 200_000
SETTINGS = {"wal_level": "logical", "max_replication_slots": "60", "max_wal_senders": "20", "logical_decoding_work_mem": "256MB"}
COMMIT = ord("C")


class NullSink:
    """Takes everything, keeps nothing, and stops the stream at a position."""

    def __init__(self, until: int, stop: Stop) -> None:
        self.until, self.stop = until, stop
        self.rows = self.complete = 0
        self.ended_at = 0.0

    async def open(self, stream: str, epoch: int) -> int:
        """Begin where the slot stands."""
        del stream, epoch
        return 0

    async def write(self, delivery: Transaction | TransactionPart) -> None:
        """Count, and stop at the end."""
        self.rows += len(delivery.changes)
        if delivery.end_lsn is not None:
            self.complete = delivery.end_lsn
            if delivery.end_lsn >= self.until:
                self.ended_at = time.perf_counter()
                self.stop.fire("the last one")

    async def flush(self) -> int:
        """Return the last position: nothing has to be stored."""
        return self.complete

    async def close(self) -> None:
        """Do nothing: nothing is held."""


def written(server: PostgresServer, *, large: bool) -> tuple[int, int]:
    """Write the rows; return their number, and the position behind them."""
    row = "n, md5(n::text), 'person-' || n || '@example.org', now()"
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("SET synchronous_commit = off")
        if large:
            conn.execute(f"INSERT INTO person SELECT {row} FROM generate_series(1, {LARGE}) n".encode())
        else:
            insert = f"INSERT INTO person SELECT {row} FROM generate_series(i * {ROWS} + 1, i * {ROWS} + {ROWS}) n"
            block = f"FOR i IN 0..{SMALL - 1} LOOP {insert}; COMMIT; END LOOP"
            conn.execute(f"DO $$ BEGIN {block}; END $$".encode())
        found = conn.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert found is not None
    return (LARGE if large else SMALL * ROWS), parse_lsn(found[0])


def recvlogical(server: PostgresServer, slot: str, until: int) -> float:
    program = server.bin_dir / "pg_recvlogical"
    command = [program, "-d", server.dsn(), "-S", slot, "--start", "-f", "/dev/null", "-o", "proto_version=1",
               "-o", "publication_names=bench", "--endpos", format_lsn(until), "--no-loop", "-F", "0", "-s", "1"]  # fmt: skip
    began_at = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return time.perf_counter() - began_at


async def raw(server: PostgresServer, slot: str, until: int) -> float:
    db = Postgres(server.dsn())
    async with await Replication.connect(db) as session:
        began_at = time.perf_counter()
        await session.start(slot, 0, {"proto_version": "1", "publication_names": "bench"})
        while True:
            batch = await session.next_batch()
            if batch:
                session.confirm(session.received_lsn)
                if batch[-1][0] == COMMIT and _end(batch[-1]) >= until:
                    break
            elif session.keepalive_lsn >= until:
                break
    took_s = time.perf_counter() - began_at
    await db.close()
    return took_s


def _end(commit: bytes) -> int:
    return int.from_bytes(commit[10:18])


async def decoded(server: PostgresServer, slot: str, until: int, rows: int) -> float:
    db, stop = Postgres(server.dsn()), Stop()
    sink = NullSink(until, stop)
    start, began_at = Replication.start, 0.0

    async def timed(session: Replication, name: str, lsn: int, options: Mapping[str, str]) -> None:
        nonlocal began_at
        began_at = time.perf_counter()
        await start(session, name, lsn, options)

    with contextlib.suppress(Stopping), mock.patch.object(Replication, "start", timed):
        await Changes(db, "bench", slot=slot, sink=sink, source=SourcePolicy(create=False)).run(stop)
    await db.close()
    if sink.rows != rows:
        sys.exit(f"bench: {sink.rows} rows came, {rows} were written")
    return sink.ended_at - began_at


def with_psycopg2(server: PostgresServer, slot: str, rows: int) -> float:
    conn = psycopg2.connect(server.dsn(), connection_factory=LogicalReplicationConnection)
    cursor = conn.cursor()
    began_at = time.perf_counter()
    options = {"proto_version": "1", "publication_names": "bench"}
    cursor.start_replication(slot_name=slot, decode=False, status_interval=10, options=options)
    count = 0
    while count < rows:
        message = cursor.read_message()
        if message is None:
            select.select([cursor], [], [], 1.0)
            continue
        kind = message.payload[0]
        if kind == ord("I"):
            count += 1
        elif kind == COMMIT:
            cursor.send_feedback(flush_lsn=message.data_start)
    took_s = time.perf_counter() - began_at
    conn.close()
    return took_s


async def with_walbox(server: PostgresServer, slot: str, rows: int) -> float:
    from walbox.abc import CheckpointHandle, WalboxOptions
    from walbox.abc import Transaction as WalboxTransaction
    from walbox.client import Client

    class Nowhere:
        async def load(self) -> int | None:
            return None

        async def save(self, lsn: int, *, connection: object = None) -> None:
            pass

    count, ended_at = 0, 0.0
    client = Client(WalboxOptions("bench", server.dsn(), slot, "bench"), Nowhere())

    async def handle(transaction: WalboxTransaction, checkpoint: CheckpointHandle) -> None:
        nonlocal count, ended_at
        count += len(transaction.changes)
        await checkpoint.save(transaction.commit_lsn)
        if count >= rows:
            ended_at = time.perf_counter()
            client.close()

    began_at = time.perf_counter()
    await client.run(handle)
    return ended_at - began_at


def has_walbox() -> bool:
    return importlib.util.find_spec("walbox") is not None


def measure(server: PostgresServer, rounds: int, *, large: bool) -> dict[str, Any]:
    """Measure the rows a second of each, the medians over the rounds, and the ratios to pg_recvlogical."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("TRUNCATE person")
        conn.execute("SELECT pg_create_logical_replication_slot('base', 'pgoutput')")
        names = ["pg_recvlogical", "raw", "decoded", "psycopg2", *(["walbox"] if has_walbox() else [])]
        for name in names:
            for number in range(rounds):
                conn.execute("SELECT pg_copy_logical_replication_slot('base', %s)", (f"{name}_{number}".lower(),))
    rows, until = written(server, large=large)
    found = last_commit(server, until)
    seen: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        run: dict[str, Callable[[str], float]] = {
            "pg_recvlogical": lambda slot: recvlogical(server, slot, found),
            "raw": lambda slot: asyncio.run(raw(server, slot, found)),
            "decoded": lambda slot: asyncio.run(decoded(server, slot, found, rows)),
            "psycopg2": lambda slot: with_psycopg2(server, slot, rows),
            "walbox": lambda slot: asyncio.run(with_walbox(server, slot, rows)),
        }
        for name in names:
            seen[name].append(rows / run[name](f"{name}_{number}"))
        print("    " + ", ".join(f"{name} {seen[name][-1]:,.0f}" for name in names), file=sys.stderr, flush=True)
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        for (slot,) in conn.execute("SELECT slot_name FROM pg_replication_slots").fetchall():
            conn.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
    ratios = {name: statistics.median(a / b for a, b in zip(seen[name], seen["pg_recvlogical"], strict=True)) for name in names}
    figures: dict[str, Any] = {
        "rows_s": {name: statistics.median(values) for name, values in seen.items()},
        "times_pg_recvlogical": ratios,
    }
    if "walbox" in seen:
        figures["decoded_times_walbox"] = statistics.median(a / b for a, b in zip(seen["decoded"], seen["walbox"], strict=True))
    return figures


def last_commit(server: PostgresServer, until: int) -> int:
    """Return the end of the last commit that the slots will send."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        # A synchronous commit has the log on disk up to here: only that is decoded.
        conn.execute("INSERT INTO flushed VALUES (1)")
        conn.execute("SELECT pg_copy_logical_replication_slot('base', 'look')")
        query = (
            "SELECT data FROM pg_logical_slot_get_binary_changes('look', %s::pg_lsn, NULL, 'proto_version', '1', "
            "'publication_names', 'bench') WHERE get_byte(data, 0) = 67 ORDER BY lsn DESC LIMIT 1"
        )
        found = conn.execute(query.encode(), (format_lsn(until + (1 << 30)),)).fetchone()
        conn.execute("SELECT pg_drop_replication_slot('look')")
    assert found is not None
    return _end(bytes(found[0]))


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    figures: dict[str, Any] = {}
    with PostgresServer(settings=SETTINGS) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("CREATE TABLE person (id bigint, name text, email text, created_at timestamptz)")
            conn.execute("CREATE TABLE flushed (n int)")
            conn.execute("CREATE PUBLICATION bench FOR TABLE person")
        for large in (False, True):
            what = f"one transaction of {LARGE:,} rows" if large else f"{SMALL:,} transactions of {ROWS} rows"
            print(what, file=sys.stderr)
            figures[what] = measure(server, options.rounds, large=large)
    if options.json:
        print(json.dumps(figures, indent=2))
    for what, seen in figures.items() if not options.json else ():
        print(what)
        for name, rate in seen["rows_s"].items():
            print(f"    {name:<16}{rate:>12,.0f} rows/s{seen['times_pg_recvlogical'][name]:>8.2f} x")
        if "decoded_times_walbox" in seen:
            print(f"    decoded is {seen['decoded_times_walbox']:.1f} x walbox")
    if not has_walbox():
        print("not installed: walbox", file=sys.stderr)
    ratios = [seen["times_pg_recvlogical"] for seen in figures.values()]
    return 1 if any(each["raw"] < RAW_MIN or each["decoded"] < DECODED_MIN for each in ratios) else 0


if __name__ == "__main__":
    sys.exit(main())
