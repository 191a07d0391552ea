"""One act on a job queue from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import click

from outlast._cli.database import on_database
from outlast._cli.errors import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import psycopg

    from outlast.jobs import Jobs
    from outlast.postgres import Postgres

T = TypeVar("T")

NOT_MIGRATED: Final = frozenset({"42P01", "3F000", "42703"})
"""SQLSTATEs of a missing table, schema and column: migrations were not run, or are older than this program."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The place of a queue: a server and a schema in it."""

    dsn: str
    schema: str

    def run(self, act: Callable[[Jobs], Awaitable[T]]) -> T:
        """Open the queue, act on it, close it. Raises CommandError."""

        async def on_queue(db: Postgres) -> T:
            from outlast.jobs import InvalidJobError, Jobs, PayloadTooLargeError

            try:
                return await act(Jobs(db, schema=self.schema))
            except (InvalidJobError, PayloadTooLargeError) as error:
                raise click.UsageError(str(error)) from None

        return on_database(self.dsn, on_queue, writable=True, explain=self._explain)

    def _explain(self, where: str, error: psycopg.Error) -> CommandError | None:
        if error.sqlstate not in NOT_MIGRATED:
            return None
        msg = f"{where} has no up-to-date queue in schema {self.schema!r}: run 'outlast jobs migrate' first"
        return CommandError(msg, Exit.CONFIGURATION)
