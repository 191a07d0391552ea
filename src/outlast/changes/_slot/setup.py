"""Is a server ready for a change stream, and if not, what is to be done: looked at first, changed only when allowed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import errors, sql

from outlast import Fault, OutlastError
from outlast.changes._slot.blockers import create_slot
from outlast.changes._slot.catalog import Survey, settle, survey
from outlast.changes._slot.findings import Finding, create_publication, findings_of
from outlast.changes._slot.findings import create_slot as create_slot_statement
from outlast.postgres.replication import read_slot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outlast.postgres import Postgres


class NotReadyError(OutlastError):
    """The server is not ready for the stream. `findings` has the exact SQL; the first one that blocks is the fault."""

    def __init__(self, findings: Findings) -> None:
        blocking = [finding.fault for finding in findings.blocking]
        more = f" (and {len(blocking) - 1} more)" if len(blocking) > 1 else ""
        fault = blocking[0]
        super().__init__(f"{fault.source}: {fault.reason}{more}; {fault.hint}", fault)
        self.findings = findings
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a look: what is there, what is wrong with it, and what was done about it."""

    survey: Survey
    findings: tuple[Finding, ...]
    done: tuple[str, ...] = ()
    """The statements that `set_up` ran."""

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings that must be put right before a stream can work."""
        return tuple(finding for finding in self.findings if finding.blocks)

    @property
    def ready(self) -> bool:
        """Whether a stream can start now, or stand by for a slot that somebody uses."""
        return not self.blocking

    @property
    def creatable(self) -> bool:
        """Whether all that is missing can be created by this user."""
        return all(finding.creatable for finding in self.blocking)

    def require(self) -> None:
        """Raise `NotReadyError` unless the server is ready."""
        if not self.ready:
            raise NotReadyError(self)


async def examine(
    db: Postgres, publication: str, slot: str, *, tables: Sequence[str] | None = None, failover: bool = False
) -> Findings:
    """Look at the server, the rights, the publication and the slot; change nothing.

    `tables`, as SQL writes their names, are what the publication shall publish. `failover`: the slot shall be carried over
    to a standby (PostgreSQL 17). Raises `Unavailable`, the driver's errors, and `ConfigurationError` for a name that is none.
    """
    seen = await survey(db, publication, slot, tables=tables, failover=failover)
    return Findings(seen, tuple(_of(finding, db.name) for finding in findings_of(seen)))


async def set_up(
    db: Postgres,
    publication: str,
    slot: str,
    *,
    tables: Sequence[str] | None = None,
    create: bool = False,
    failover: bool = False,
    wait_s: float = 60.0,
    on_blocked: Callable[[Fault], None] | None = None,
) -> Findings:
    """Look, and with `create` make the publication and the slot that are missing: both, or nothing if anything else blocks.

    Without `tables` a publication is made for all tables, which needs a superuser. What exists is never changed: a table that
    is missing from a publication is a finding with its SQL. Safe to run at any time, also twice at once.

    A slot waits for the transactions that are open, at most `wait_s` seconds: whoever blocks it is named once, by `on_blocked`
    or one INFO line. Raises what `examine` and `create_slot` do.
    """
    before = await examine(db, publication, slot, tables=tables, failover=failover)
    if not create or before.ready or not before.creatable:
        return before
    done: list[str] = []
    refused: list[Finding] = []
    # The publication first: the slot decodes changes as of their time, and there it must exist already.
    if before.survey.publication is None:
        statement = create_publication(before.survey)
        try:
            async with db.connection() as conn:
                await conn.execute(statement)
            done.append(statement.as_string(None))
        except (errors.DuplicateObject, errors.UniqueViolation):
            # Somebody else made it: before us, or at the same time. What they made is looked at below.
            pass
        except errors.InsufficientPrivilege as error:
            refused.append(_refused(db, error, statement.as_string(None)))
    if before.survey.slot is None and not refused:
        made = await create_slot(db, slot, failover=failover, wait_s=wait_s, on_blocked=on_blocked)
        if made:
            done.append(create_slot_statement(slot, failover=failover).as_string(None))
    after = await examine(db, publication, slot, tables=tables, failover=failover)
    return replace(after, findings=(*refused, *after.findings), done=tuple(done))


class SlotInUseError(OutlastError):
    """The slot cannot be dropped while somebody uses it. `fault` names them."""

    def __init__(self, slot: str, fault: Fault) -> None:
        super().__init__(f"cannot drop replication slot {slot}: {fault.reason}; {fault.hint}", fault)
        self.slot = slot
        self.fault = fault


async def drop_slot(db: Postgres, slot: str) -> bool:
    """Drop the slot; False if there is none. What it had not delivered is gone with it.

    Raises `SlotInUseError` while somebody uses it, `Unavailable` and the driver's errors.
    """
    try:
        async with db.connection() as conn:
            await conn.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
    except errors.UndefinedObject:
        return False
    except errors.ObjectInUse as error:
        async with db.connection() as conn:
            await settle(conn)
            seen = await read_slot(conn, slot)
        fault = db.classifiers.classify(error, source=db.name, phase="query")
        if seen is not None and seen.holder is not None:
            fault = replace(fault, reason=f"it is used by {seen.holder}", hint="end that session first")
        raise SlotInUseError(slot, fault) from error
    return True


async def drop_publication(db: Postgres, publication: str) -> bool:
    """Drop the publication; False if there is none. Raises `Unavailable` and the driver's errors."""
    try:
        async with db.connection() as conn:
            await conn.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(publication)))
    except errors.UndefinedObject:
        return False
    return True


async def list_slots(db: Postgres) -> list[str]:
    """Return the names of the logical slots of this database, at most a thousand; temporary ones are their session's affair."""
    async with db.connection() as conn:
        cursor = await conn.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND NOT temporary"
            " ORDER BY 1 LIMIT 1000"
        )
        return [name for (name,) in await cursor.fetchall()]


def _refused(db: Postgres, error: errors.InsufficientPrivilege, statement: str) -> Finding:
    fault = db.classifiers.classify(error, source=db.name, phase="query")
    advice = "as the owner of the tables"
    return Finding(replace(fault, hint=f"{statement}, {advice}"), (statement,), advice=advice)


def _of(finding: Finding, source: str) -> Finding:
    return replace(finding, fault=replace(finding.fault, source=source))
