"""One act on a job queue from the command line: open it, do it, and say in one line what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from outlast import ConfigurationError, Fault, Kind, OutlastError, Unavailable
from outlast.cli.errors import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    import psycopg

    from outlast.jobs import Jobs
    from outlast.postgres import Postgres

T = TypeVar("T")

CONNECT_S_MAX: Final = 5.0
"""Somebody waits at the terminal."""
NOT_MIGRATED: Final = frozenset({"42P01", "3F000", "42703"})
"""SQLSTATEs of a missing table, schema and column: migrations were not run, or are older than this program."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Which queue: a server and a schema in it."""

    dsn: str
    schema: str

    def run(self, act: Callable[[Jobs], Awaitable[T]]) -> T:
        """Open the queue, act on it, close it. Raises CommandError."""
        with _silence():
            return asyncio.run(self._run(act))

    async def _run(self, act: Callable[[Jobs], Awaitable[T]]) -> T:
        import psycopg

        from outlast.jobs import Jobs
        from outlast.postgres import Postgres, redact_dsn

        try:
            db = Postgres(self.dsn, connections_max=1, connect_timeout_s=CONNECT_S_MAX, application_name="outlast-cli")
        except ConfigurationError as error:
            raise CommandError(str(error), Exit.CONFIGURATION) from None
        try:
            where = self._where(db)
        except ValueError:
            msg = f"cannot read the DSN {redact_dsn(self.dsn)!r}: its port is no number"
            raise CommandError(msg, Exit.CONFIGURATION) from None
        try:
            return await act(Jobs(db, schema=self.schema))
        except Unavailable as error:
            raise self._unreachable(where, error.fault) from None
        except psycopg.Error as error:
            raise self._refused(db, where, error) from None
        except (OutlastError, OSError) as error:
            raise CommandError(f"{where}: {error}", Exit.UNAVAILABLE) from None
        finally:
            await db.close()

    def _refused(self, db: Postgres, where: str, error: psycopg.Error) -> CommandError:
        if error.sqlstate in NOT_MIGRATED:
            msg = f"{where} has no up-to-date queue in schema {self.schema!r}: run 'outlast jobs migrate' first"
            return CommandError(msg, Exit.CONFIGURATION)
        return self._unreachable(where, db.classifiers.classify(error, source=db.name, phase="query"))

    @staticmethod
    def _unreachable(where: str, fault: Fault) -> CommandError:
        code = Exit.CONFIGURATION if fault.kind is Kind.PERMANENT else Exit.UNAVAILABLE
        hint = f"; {fault.hint}" if fault.hint else ""
        return CommandError(f"{where}: {fault.code} {fault.reason}{hint}", code)

    @staticmethod
    def _where(db: Postgres) -> str:
        return f"PostgreSQL at {', '.join(map(str, db.dsn.addresses))}, database {db.dsn.database}"


@contextlib.contextmanager
def _silence() -> Generator[None]:
    """Keep the library's own lines off the terminal: what went wrong is said once, by us."""
    logger = logging.getLogger("outlast")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
