"""One act on a database from the command line: open it, do it, and say in one line what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, TypeVar

from outlast import ConfigurationError, Fault, Kind, OutlastError, Unavailable
from outlast.cli.errors import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from outlast.postgres import Postgres

T = TypeVar("T")

CONNECT_S_MAX: Final = 5.0
"""Somebody waits at the terminal."""
CONNECTIONS_MAX: Final = 2
"""One to act, and one to look meanwhile."""


def on_database(dsn: str, act: Callable[[Postgres], Awaitable[T]]) -> T:
    """Open the database, act on it, close it. Raises CommandError."""
    with _silence():
        return asyncio.run(_run(dsn, act))


async def _run(dsn: str, act: Callable[[Postgres], Awaitable[T]]) -> T:
    import psycopg

    from outlast.postgres import Postgres

    try:
        # A standby is looked at as well; what cannot be done there is said by whoever tries.
        db = Postgres(
            dsn,
            connections_max=CONNECTIONS_MAX,
            connect_timeout_s=CONNECT_S_MAX,
            application_name="outlast-cli",
            writable=False,
        )
    except ConfigurationError as error:
        raise CommandError(str(error), Exit.CONFIGURATION) from None
    where = place(db)
    try:
        return await act(db)
    except Unavailable as error:
        raise refusal(where, error.fault) from None
    except psycopg.Error as error:
        raise refusal(where, db.classifiers.classify(error, source=db.name, phase="query")) from None
    except ConfigurationError as error:
        raise CommandError(f"{where}: {error}", Exit.CONFIGURATION) from None
    except (OutlastError, OSError) as error:
        raise CommandError(f"{where}: {error}", Exit.UNAVAILABLE) from None
    finally:
        await db.close()


def place(db: Postgres) -> str:
    """Where it is, for people; without secrets."""
    return f"PostgreSQL at {', '.join(map(str, db.dsn.addresses))}, database {db.dsn.database}"


def exit_for(fault: Fault) -> Exit:
    """The exit code of a fault: whether it may pass by itself."""
    return Exit.CONFIGURATION if fault.kind is Kind.PERMANENT else Exit.UNAVAILABLE


def refusal(where: str, fault: Fault) -> CommandError:
    """The line that ends the command because of a fault."""
    hint = f"; {fault.hint}" if fault.hint else ""
    return CommandError(f"{where}: {fault.code} {fault.reason}{hint}", exit_for(fault))


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
