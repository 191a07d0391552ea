"""The arm *naive* of the greptime drill over HTTP: a handler that makes a table where it finds none, and remembers nothing."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final

import psycopg
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from outlast._drill.greptime.arms.metrics_server import MetricsSettings

if TYPE_CHECKING:
    from starlette.requests import Request

BUSY_S: Final = 30.0
LINE: Final = re.compile(rb"(\w+),writer=drill n=(\d+)i,value=([\d.]+) (\d+)")
logger = logging.getLogger("naive")


class Handler:
    """Writes each body in one transaction, on a connection of the thread's own."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings
        self._prefix = "metrics." if settings.is_postgres else ""
        self._mine = threading.local()

    async def write(self, request: Request) -> Response:
        """Take a body."""
        body = await request.body()
        try:
            await asyncio.to_thread(self._write, body)
        except (psycopg.Error, sqlite3.Error):
            logger.exception("cannot write %d bytes", len(body))
            return Response(status_code=500)
        return Response(status_code=204)

    def _write(self, body: bytes) -> None:
        connection = self._connection()
        table = body[: body.index(b",")].decode()
        rows = [(int(number), float(value), int(time_ns)) for _, number, value, time_ns in LINE.findall(body)]
        try:
            self._insert(connection, table, rows)
        except (psycopg.errors.UndefinedTable, sqlite3.OperationalError):
            connection.rollback()
            columns = "n bigint, value double precision, time bigint PRIMARY KEY"
            connection.cursor().execute(f'CREATE TABLE IF NOT EXISTS {self._prefix}"{table}" ({columns})')
            self._insert(connection, table, rows)

    def _insert(self, connection: Any, table: str, rows: list[tuple[int, float, int]]) -> None:  # noqa: ANN401  of either driver
        mark = "%s" if self._settings.is_postgres else "?"
        try:
            connection.cursor().executemany(
                f'INSERT INTO {self._prefix}"{table}" (n, value, time) VALUES ({mark}, {mark}, {mark}) ON CONFLICT DO NOTHING',  # noqa: S608  names of the drill's own
                rows,
            )
            connection.commit()
        except (psycopg.Error, sqlite3.Error):
            connection.rollback()
            raise

    def _connection(self) -> Any:  # noqa: ANN401  of either driver
        if not hasattr(self._mine, "connection"):
            if self._settings.is_postgres:
                self._mine.connection = psycopg.connect(self._settings.store)
                self._mine.connection.execute("CREATE SCHEMA IF NOT EXISTS metrics")
                self._mine.connection.commit()
            else:
                self._mine.connection = sqlite3.connect(self._settings.store, timeout=BUSY_S)
                self._mine.connection.execute("PRAGMA journal_mode = WAL")
        return self._mine.connection


def main() -> None:
    """Serve until SIGTERM."""
    settings = MetricsSettings.from_environment()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    host, _, port = settings.address.rpartition(":")
    app = Starlette(routes=[Route("/write", Handler(settings).write, methods=["POST"])])
    uvicorn.run(app, host=host, port=int(port), access_log=False, log_config=None)


if __name__ == "__main__":
    main()
