"""Reads rows by COPY: in memory that is bounded by one batch, at the pace of whoever takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import errors, generators, pq
from psycopg.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from psycopg import sql
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

    from outlast.postgres import Connection


async def copied_batches(
    conn: Connection, statement: sql.Composed, *, rows_max: int, bytes_max: int
) -> AsyncGenerator[tuple[bytes, ...]]:
    """Run a COPY … TO STDOUT and give its lines in batches: `rows_max` rows at most, or the first that make `bytes_max` bytes.

    The server waits while a batch is dealt with. Ending this early, or a failure, closes the connection: the rest of the COPY
    would have to be read first. Raises the driver's errors.
    """
    text = statement.as_bytes(conn)
    finished = False
    try:
        await conn.wait(_start(conn.pgconn, text))
        while not finished:
            lines, finished = await conn.wait(_lines(conn.pgconn, rows_max, bytes_max))
            if lines:
                yield tuple(lines)
    finally:
        if not finished:
            conn.pgconn.finish()


def _start(pgconn: pq.abc.PGconn, text: bytes) -> PQGen[None]:
    pgconn.send_query(text)
    results = yield from generators.execute(pgconn)
    _check(pgconn, results, pq.ExecStatus.COPY_OUT)


def _lines(pgconn: pq.abc.PGconn, rows_max: int, bytes_max: int) -> PQGen[tuple[list[bytes], bool]]:
    """Collect lines until there are enough, without leaving the loop for those that have arrived."""
    lines: list[bytes] = []
    size = 0
    while len(lines) < rows_max and size < bytes_max:
        count, data = pgconn.get_copy_data(1)
        if count > 0:
            lines.append(bytes(data))
            size += count
        elif count == 0:
            yield Wait.R
            pgconn.consume_input()
        else:
            results = yield from generators.fetch_many(pgconn)
            _check(pgconn, results, pq.ExecStatus.COMMAND_OK)
            return lines, True
    return lines, False


def _check(pgconn: pq.abc.PGconn, results: list[PGresult], wanted: pq.ExecStatus) -> None:
    for result in results:
        if result.status != wanted:
            raise errors.error_from_result(result, encoding="utf-8")
    if not results:
        raise errors.OperationalError(pgconn.get_error_message())
