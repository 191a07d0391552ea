"""The server of the benches of tables: one process with `outlast.tables`, which prints a line when it listens.

    python bench/_tables_server.py outlast --port 8086 --place metrics.db

`admitted` has an admission before it; `refusing` refuses all but the first request by a rate. `--rows-per-s`: the store takes so
many rows a second, whatever the process does: it is a machine of its own, which works off in turn what it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import outlast
from outlast._drill.greptime.http.points import is_postgres
from outlast.admission import Rate
from outlast.http import Limits, Server
from outlast.tables import TableLimits, Tables, TablesApp
from outlast.tables._stores.choose import store_of
from outlast.tables._tables import Stores

if TYPE_CHECKING:
    from collections.abc import Sequence


class SlowStore:
    """A store of tables that takes so many rows a second."""

    def __init__(self, store: Any, rows_per_s: float) -> None:  # noqa: ANN401 - whatever store it is
        self._store = store
        self._rows_per_s = rows_per_s

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what the store has
        return getattr(self._store, name)

    async def write(self, groups: Sequence[Any], **asked: Any) -> Any:  # noqa: ANN401 - what the store takes and returns
        """Write, in the time that so many rows take."""
        began_s = asyncio.get_running_loop().time()
        wrote = await self._store.write(groups, **asked)
        took_s = asyncio.get_running_loop().time() - began_s
        await asyncio.sleep(max(0.0, sum(len(group.rows) for group in groups) / self._rows_per_s - took_s))
        return wrote


def database(place: str) -> Any:  # noqa: ANN401 - one of two adapters
    """Return what lies there."""
    if is_postgres(place):
        from outlast.postgres import Postgres

        return Postgres(place)
    from outlast.sqlite import Sqlite

    return Sqlite(place)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("arm", choices=["outlast", "admitted", "refusing"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--place", required=True, help="the path of a SQLite file, or the DSN of a PostgreSQL")
    parser.add_argument("--rows-per-s", type=float, help="(default: as many as it can)")
    parser.add_argument("--log", help="a file for the log (default: standard error)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, filename=options.log, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    service = outlast.Service("bench")
    db: Any = database(options.place)
    if options.rows_per_s:
        db = Stores(cast("Any", SlowStore(store_of(db, "outlast", "metrics"), options.rows_per_s)), db)
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(db, limits=TableLimits(), journal_path=Path(folder) / "journal")
        tables.attach(service)
        admission = None
        if options.arm != "outlast":
            # A rate of one request in ten minutes: all but the first are refused, and may come back.
            admission = outlast.Admission("tables", rate=Rate(1 / 600, burst=1) if options.arm == "refusing" else None)
            admission.attach(service)
        limits = Limits(connections_max=None, connections_per_client_max=None)
        Server(TablesApp(tables).attach(service), f"127.0.0.1:{options.port}", limits=limits, admission=admission).attach(service)

        @service.task()
        async def say(stop: outlast.Stop) -> None:
            await service.until_ready()
            sys.stdout.write(f"listening on {options.port}\n")
            sys.stdout.flush()
            await stop.wait()

        sys.exit(asyncio.run(service.run()))


if __name__ == "__main__":
    main()
