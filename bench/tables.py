"""Processor time of a row on its way from HTTP to durable, of 1, 10 and 100 tables, against its parts and against bare drivers.

    python bench/tables.py                                 # SQLite and PostgreSQL, some minutes
    python bench/tables.py --store sqlite --tables 10 --pairs 6
    python bench/tables.py --json                          # the same, for a script

Every round has each arm once, in an order that changes, with the same bodies: 1,000 points, three fields each. All figures are
user and system time of the process under test and of its sessions in PostgreSQL, an arm at a time; those of the client that sends
over HTTP do not count. Promised are, by the median of the ratios in each round:

- HTTP to durable: at most 1.7 x the parser alone and the store alone;
- parsed rows to durable: at least 0.5 x the rows a second of COPY (SQLite: of a bare executemany), and 0.8 x those of ON CONFLICT
  in batches;
- the parser: at least 0.7 x the lines a second of `line-protocol-parser`, which is written in C;
- flat: of 100 tables, and of `--many-series` series, a row from HTTP costs at most 1.5 x that of one table and few series, beyond
  what it costs a bare driver more.

Four bodies are under way at a time over HTTP and as parsed rows, which the writer may put into one transaction. The bare arms and
the store alone have a transaction a body, as a handler has that makes each durable; with `--together 4` they have four in each,
as one has that waits for others. The exit code is 1 when a promise is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _medians import median_interval
from _overload_process import listening
from _tables_arms import Meter, OurParser, OverHttp, ParserInC, RowsOfOurs, StoreAlone
from _tables_bare import Executemany, PostgresBare
from _tables_bodies import Bodies
from _tables_server import database

from outlast._drill.greptime.http.client import HttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from _tables_arms import Arm

STORES = ("sqlite", "postgres")
POINTS = 1_000
HTTP_MAX, BARE_MIN, UPSERT_MIN, PARSER_MIN, FLAT_MAX = 1.7, 0.5, 0.8, 0.7, 1.5
BARE = {"sqlite": "executemany", "postgres": "copy"}


@dataclass(slots=True)
class Costs:
    """The processor time of a row in each round, in microseconds, by arm."""

    tables: int
    series: int
    by_arm: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, over: str | list[str], under: str | list[str]) -> tuple[float, float, float]:
        """Return the median of the ratios of two sums of arms, and the ends of its interval."""
        sums = [
            [sum(costs) for costs in zip(*(self.by_arm[arm] for arm in ([arms] if isinstance(arms, str) else arms)), strict=True)]
            for arms in (over, under)
        ]
        return median_interval([one / other for one, other in zip(*sums, strict=True)])

    def median(self, arm: str) -> float:
        """Return the median of an arm."""
        return median_interval(self.by_arm[arm])[0]


@contextlib.asynccontextmanager
async def arms_of(store: str, folder: Path, together: int) -> AsyncIterator[list[Arm]]:
    """Make all arms on one store."""
    with contextlib.ExitStack() as stack:
        postmaster, places, bare = None, [str(folder / f"{number}.db") for number in range(5)], []
        if store == "postgres":
            from outlast.testing import PostgresServer

            # As it is installed: commits are synced.
            server = stack.enter_context(PostgresServer(settings={"max_wal_size": "8GB", "checkpoint_timeout": "1h"}))
            postmaster = server._process.pid  # noqa: SLF001 - its sessions are measured
            places = await asyncio.to_thread(own_databases, server.dsn())
            bare = [PostgresBare(Meter(postmaster), places[3], together, upserts=upserts) for upserts in (False, True)]
        else:
            bare = [Executemany(Meter(), place, together, upserts=place == places[4]) for place in places[3:]]
        running = stack.enter_context(listening("_tables_server.py", "outlast", "--place", places[0]))
        client = HttpClient(f"127.0.0.1:{running.port}", limit_s=120.0)
        alone, through = database(places[1]), database(places[2])
        meter, rows = Meter(postmaster), RowsOfOurs(Meter(postmaster), through)
        async with rows.tables:
            http = OverHttp(Meter(postmaster, running.pid), client)
            yield [OurParser(Meter()), ParserInC(Meter()), StoreAlone(meter, alone, together), rows, http, *bare]
            await alone.close()
        client.close()
        for one in bare:
            one.close()


def own_databases(dsn: str) -> list[str]:
    """Make a database for each arm; return the DSNs."""
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as conn:
        for number in range(4):
            conn.execute(f"CREATE DATABASE arm{number}".encode())
    return [f"{dsn.rpartition('/')[0]}/arm{number}" for number in range(4)]


async def measure(store: str, tables: int, series: int, options: argparse.Namespace) -> Costs:
    """Run all rounds of one number of tables and series."""
    costs = Costs(tables, series)
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        async with arms_of(store, Path(folder), options.together) as arms:
            bodies = {arm.name: Bodies(tables, series, POINTS) for arm in arms}
            for arm in arms:
                await arm.prepare(bodies[arm.name])
                await arm.work([bodies[arm.name].make() for _ in range(options.bodies)])
            for number in range(options.pairs):
                for arm in arms if number % 2 else reversed(arms):
                    ready = [bodies[arm.name].make() for _ in range(options.bodies)]
                    spent_s = await arm.work(ready)
                    costs.by_arm.setdefault(arm.name, []).append(spent_s * 1e6 / (options.bodies * POINTS))
    return costs


def judge(store: str, found: list[Costs]) -> tuple[dict[str, Any], list[str]]:
    """Return the ratios, and what is missed."""
    bare, wrong, ratios = BARE[store], [], {}
    for costs in found:
        here = f"{store}, {costs.tables} tables, {costs.series:,} series"
        each = {
            "http / (parser + store)": (costs.ratio("http", ["parser", "store"]), HTTP_MAX, None),
            f"rows a second, {bare} = 1": (costs.ratio(bare, "rows"), None, BARE_MIN),
            "rows a second, on conflict = 1": (costs.ratio("on conflict", "rows"), None, UPSERT_MIN),
            "lines a second, line-protocol-parser = 1": (costs.ratio("line-protocol-parser", "parser"), None, PARSER_MIN),
        }
        wrong += [
            f"{here}: {name} is {ratio[0]:.2f}, at most {most}"
            for name, (ratio, most, _) in each.items()
            if most and ratio[0] > most
        ]
        wrong += [
            f"{here}: {name} is {ratio[0]:.2f}, at least {least}"
            for name, (ratio, _, least) in each.items()
            if least and ratio[0] < least
        ]
        ratios[here] = {name: ratio for name, (ratio, _, _) in each.items()}
    base = found[0]
    for costs in found[1:]:
        ours, others = (costs.median(arm) / base.median(arm) for arm in ("http", bare))
        name = f"{store}: a row of {costs.tables} tables and {costs.series:,} series, of {base.tables} and {base.series:,} = 1"
        ratios[name] = {"http": ours, bare: others}
        if ours > FLAT_MAX * max(1.0, others):
            wrong.append(f"{name}: {ours:.2f}, and {others:.2f} for {bare}, at most {FLAT_MAX} x that")
    return ratios, wrong


def show(store: str, found: list[Costs], ratios: dict[str, Any], wrong: list[str]) -> None:
    """Print one store."""
    arms = list(found[0].by_arm)
    print(
        f"{store}: microseconds of processor time a row\n{'tables':>7}{'series':>9}"
        + "".join(f"{arm:>22}" for arm in sorted(arms))
    )
    for costs in found:
        print(f"{costs.tables:>7}{costs.series:>9,}" + "".join(f"{costs.median(arm):>22.2f}" for arm in sorted(arms)))
    for here, each in ratios.items():
        for name, ratio in each.items():
            text = f"{ratio:.2f}" if isinstance(ratio, float) else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"
            print(f"  {here}: {name}: {text}")
    print(*(f"  WRONG {text}" for text in wrong), sep="\n")


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=STORES)
    parser.add_argument("--tables", default="1,10,100", help="numbers of tables (default: %(default)s)")
    parser.add_argument("--series", type=int, default=1_000, help="of all tables together (default: %(default)s)")
    parser.add_argument("--many-series", type=int, default=50_000, help="one more run of a table with so many; 0: none")
    parser.add_argument("--pairs", type=int, default=20, help="rounds (default: %(default)s)")
    parser.add_argument("--bodies", type=int, default=12, help="bodies of 1,000 points an arm and round (default: %(default)s)")
    parser.add_argument("--together", type=int, default=1, help="bodies a transaction of the others (default: %(default)s)")
    parser.add_argument("--directory", help="on the disk to use (default: that of temporary files)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = [(int(number), options.series) for number in options.tables.split(",")]
    if options.many_series:
        runs.append((1, options.many_series))
    results, all_wrong = {}, []
    for store in [options.store] if options.store else STORES:
        found = [asyncio.run(measure(store, tables, series, options)) for tables, series in runs]
        ratios, wrong = judge(store, found)
        all_wrong += wrong
        results[store] = {"ratios": ratios, "us_a_row": [{arm: costs.median(arm) for arm in costs.by_arm} for costs in found]}
        if not options.json:
            show(store, found, ratios, wrong)
    if options.json:
        print(json.dumps(results | {"wrong": all_wrong}))
    return 1 if all_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
