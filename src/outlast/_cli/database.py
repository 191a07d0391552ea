"""One act on a database from the command line: open it, do it, and say in one line what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, TypeVar

from outlast import ConfigurationError, Fault, Kind, OutlastError, Unavailable
from outlast._cli.errors import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    import psycopg

    from outlast.postgres import Postgres

T = TypeVar("T")

CONNECT_S_MAX: Final = 5.0
"""Somebody waits at the terminal."""
CONNECTIONS_MAX: Final = 2
"""One to act, and one to look meanwhile."""


def on_database(
    dsn: str,
    act: Callable[[Postgres], Awaitable[T]],
    *,
    writable: bool = False,
    explain: Callable[[str, psycopg.Error], CommandError | None] | None = None,
) -> T:
    """Open the database, act on it, close it. Raises CommandError.

    `writable`: a standby will not do. `explain` is asked first what an error of a statement means; it is given the place.
    """
    with silence():
        return asyncio.run(_run(dsn, act, writable, explain))


async def _run(
    dsn: str,
    act: Callable[[Postgres], Awaitable[T]],
    writable: bool,  # noqa: FBT001
    explain: Callable[[str, psycopg.Error], CommandError | None] | None,
) -> T:
    import psycopg

    from outlast.postgres import Postgres, redact_dsn

    try:
        # What cannot be done on a standby is said by whoever tries.
        db = Postgres(
            dsn,
            connections_max=CONNECTIONS_MAX,
            connect_timeout_s=CONNECT_S_MAX,
            application_name="outlast-cli",
            writable=writable,
        )
    except ConfigurationError as error:
        raise CommandError(str(error), Exit.CONFIGURATION) from None
    try:
        where = place(db)
    except ValueError:
        msg = f"cannot read the DSN {redact_dsn(dsn)!r}: its port is no number"
        raise CommandError(msg, Exit.CONFIGURATION) from None
    try:
        return await act(db)
    except Unavailable as error:
        raise refusal(where, error.fault) from None
    except psycopg.Error as error:
        fault = db.classifiers.classify(error, source=db.name, phase="query")
        raise (explain(where, error) if explain is not None else None) or refusal(where, fault) from None
    except ConfigurationError as error:
        raise CommandError(f"{where}: {error}", Exit.CONFIGURATION) from None
    except (OutlastError, OSError) as error:
        raise CommandError(f"{where}: {error}", Exit.UNAVAILABLE) from None
    finally:
        await db.close()


def place(db: Postgres) -> str:
    """Return where the server is, for people; without secrets."""
    return f"PostgreSQL at {', '.join(map(str, db.dsn.addresses))}, database {db.dsn.database}"


def exit_for(fault: Fault) -> Exit:
    """Return `CONFIGURATION` for what a person must put right, and `UNAVAILABLE` for what may pass by itself."""
    return Exit.CONFIGURATION if fault.kind in {Kind.PERMANENT, Kind.FATAL} else Exit.UNAVAILABLE


def refusal(where: str, fault: Fault) -> CommandError:
    """Return the error, one line, that ends the command because of a fault."""
    hint = f"; {fault.hint}" if fault.hint else ""
    return CommandError(f"{where}: {fault.code} {fault.reason}{hint}", exit_for(fault))


@contextlib.contextmanager
def silence() -> Generator[None]:
    """Keep the library's own lines off the terminal: what went wrong is said once, by us."""
    logger = logging.getLogger("outlast")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
