"""Dedicated connections for replication and for locks: watched by TCP, paced, and refused while the server is down."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.conninfo import make_conninfo

from outlast import ConfigurationError, Fault, Kind, Scope, Stopping
from outlast.extend import Pacer, attach, attached, clean
from outlast.postgres._connection import Connection
from outlast.postgres._settings import TIMEOUTS, look_for_us, wait_on_purpose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from outlast.postgres._dependency import Postgres

    Rule = Callable[[BaseException, str], Fault | None]

REFUSED: Final = "session refused"
"""The code when the server lets everyone in but this session, and why is known only from its translated text."""
TEXT_SETTINGS: Final = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
}
"""So that values as text mean the same everywhere, whatever the settings of a role or a database are."""
_DURABLE: Final = b"""
SELECT pg_catalog.set_config('synchronous_commit', 'on', false) WHERE pg_catalog.current_setting('synchronous_commit') = 'off'
"""
"""A source forgets what its sink has committed and confirmed. With `off`, as a role may have it, a crash of the sink's server
takes the commit back, the position too, and leaves a hole. Whatever else a role says is left as it is."""
_pacers: Final[weakref.WeakKeyDictionary[Postgres, Pacer]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The times after which TCP finds out, on both sides, that the other machine is gone: whole seconds, at least 1 each."""

    idle_s: int = 1
    interval_s: int = 1
    count: int = 3

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for a number that TCP does not accept."""
        for name in ("idle_s", "interval_s", "count"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"keepalive {name} must be at least 1, not {getattr(self, name)}")

    @property
    def total_s(self) -> int:
        """Seconds from the last sign of life to the end of the connection."""
        return self.idle_s + self.interval_s * self.count

    def of_server(self) -> dict[str, str]:
        """Return the settings of the server's side, for a session that asks for them.

        `tcp_user_timeout` is not among them: on Linux it also ends a connection whose receiver takes nothing for that time, and
        that is what a consumer does that pauses because its sink is slow.
        """
        return {
            "tcp_keepalives_idle": str(self.idle_s),
            "tcp_keepalives_interval": str(self.interval_s),
            "tcp_keepalives_count": str(self.count),
        }

    def of_client(self) -> dict[str, str | int]:
        """Return the options of libpq for our side."""
        return {
            "keepalives": 1,
            "keepalives_idle": self.idle_s,
            "keepalives_interval": self.interval_s,
            "keepalives_count": self.count,
            # What was sent and is not acknowledged is no idle connection, and no keepalive ends it. Milliseconds.
            "tcp_user_timeout": self.total_s * 1000,
        }


async def dial(
    db: Postgres,
    *,
    application_name: str,
    keepalive: Keepalive,
    settings: Mapping[str, str] | None = None,
    options: Mapping[str, str | int] | None = None,
    rule: Rule | None = None,
    operation_timeout_s: float | None = 10.0,
) -> Connection:
    """Open an autocommit connection that belongs to the caller, who closes it.

    It takes part in the health of `db` only while it is dialled: `Unavailable` at once while the server is down, and a server
    that cannot be reached counts. Later trouble of the session concerns the session alone. `settings` are server settings of the
    session, `options` are libpq's; those in the DSN of `db` win over both. Some are ours whatever the role, the database or the
    DSN say, since they would end a wait or change what a value means: there are no time-outs but those in `settings`, the formats
    are `TEXT_SETTINGS`, and a commit is durable. `rule` is asked first what a failure means. Cancelled, it leaves nothing open.
    """
    async with db.use("connect"):
        await _pacers.setdefault(db, Pacer()).turn()
        if db.is_stopping:
            raise Stopping("no connection is opened any more")
        epoch = db.epoch
        conninfo = _conninfo(db, application_name, keepalive, settings or {}, options or {})
        try:
            conn = await Connection.connect(conninfo, autocommit=True)
        except psycopg.Error as exc:
            await _explain(db, exc, rule)
            raise
        conn.operation_timeout_s = operation_timeout_s
        conn.epoch = epoch
        try:
            await _settle(conn, TEXT_SETTINGS | {name: value for name, value in (settings or {}).items() if name in TIMEOUTS})
        except BaseException:
            conn.pgconn.finish()
            raise
        return conn


async def _settle(conn: Connection, settings: Mapping[str, str]) -> None:
    """Set what the session depends on: `settings`, no time-outs, durable commits, a server that looks whether we are there."""
    await conn.execute(_DURABLE)
    await look_for_us(conn)
    await wait_on_purpose(conn, settings)


def _conninfo(
    db: Postgres, application_name: str, keepalive: Keepalive, settings: Mapping[str, str], options: Mapping[str, str | int]
) -> str:
    wanted: dict[str, str | int] = {
        "connect_timeout": max(2, round(db.connect_timeout_s)),
        "application_name": application_name,
        **keepalive.of_client(),
    }
    if db.writable and len(db.dsn.addresses) > 1:
        wanted["target_session_attrs"] = "read-write"
    ours = " ".join(f"-c {name}={value}" for name, value in (keepalive.of_server() | dict(settings)).items())
    # The last setting of a name wins: the user's.
    return make_conninfo(db.dsn.with_options(**wanted), **options, options=f"{ours} {db.dsn.get('options')}".strip())


async def _explain(db: Postgres, exc: psycopg.Error, rule: Rule | None) -> None:
    """Attach the fault of a failure to connect: psycopg hides its SQLSTATE, the rule may know its text, else the probe asks."""
    fault = rule(exc, "connect") if rule is not None else None
    if fault is None and attached(exc) is None:
        try:
            async with asyncio.timeout(db.connect_timeout_s):
                await db.probe()
        except Exception as told:  # noqa: BLE001 - whatever it is, it is classified
            fault = db.classifiers.classify(told, source=db.name, phase="connect")
        else:
            lines = str(exc).strip().splitlines()
            reason = clean(lines[0] if lines else type(exc).__name__)
            fault = Fault(Kind.TRANSIENT, REFUSED, reason, source=db.name, scope=Scope.CALL, hint="others are let in")
    if fault is not None:
        attach(exc, fault)
