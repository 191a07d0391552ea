"""The making of what tables lack: one procedure at a time for a table, however many bodies want it, and a memory of refusals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from outlast import Fault, Kind, Scope, Stopping, Unavailable
from outlast.procedures import (
    InvalidProcedureError,
    ProcedureExpiredError,
    ProcedureFailedError,
    ProcedureRefused,
    WaitTimeoutError,
)
from outlast.tables._model import FieldType, PointOutcome
from outlast.tables._schema.limits import fields_refusal, table_refusal
from outlast.tables._schema.shape_procedures import SHAPE_KIND, lock_of, payload_of
from outlast.tables._schema.verdict import RETRY_S, SOURCE, PointsRefusal, later, never, of_unavailable, waiting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from outlast.procedures import Procedures
    from outlast.tables._limits import TableLimits
    from outlast.tables._schema.catalogue import Catalogue, Known
    from outlast.tables._schema.rates import Rates
    from outlast.tables._stores.port import TableStore

DEADLINE_S: Final = 5.0
"""A procedure that has not ended by then is waited for by nobody new: whoever comes is told so at once."""
FLIGHT_S_MAX: Final = 30.0
"""A procedure that has not begun by then is dropped, and submitted again for whoever comes next."""
REMEMBER_S: Final = 1.0
"""A refusal is answered from here for so long at most, so that what a person mends is seen soon."""
LOOKS_PER_S: Final = 100
"""No more tables that were refused are tried in a second: if very many are, each refusal is remembered for longer."""
FORGET_S: Final = 60.0
REMEMBERED_MAX: Final = 10_000
FULL_S: Final = 60.0
"""For so long a table whose store has no room for another field is not asked for one."""
PAYLOAD_BYTES: Final = 32 * 1024
"""The names of fields in one payload: half of what a procedure takes. What is more follows in the next."""
WIDENS: Final = (FieldType.INTEGER, FieldType.FLOAT)
PERSON_KINDS: Final = frozenset({Kind.PERMANENT, Kind.REJECTED})


class Flight:
    """The making of a table, or of fields of it. Whoever joined looks again when it has landed."""

    __slots__ = ("asked", "began_at", "by_cause", "is_new", "is_sent", "mends", "slow", "task")

    def __init__(self, asked: dict[str, FieldType], began_at: float, *, is_new: bool) -> None:
        self.asked = asked
        self.began_at = began_at
        self.is_new = is_new
        self.is_sent = False
        """It takes no more fields: its procedure has been submitted."""
        self.mends = False
        """Have it made whatever the catalogue says."""
        self.slow: Fault | None = None
        """The cause for which it takes so long."""
        self.by_cause = False
        """Whether that is one by which many tables have failed, and which is tried with one of them at a time."""
        self.task: asyncio.Task[PointsRefusal | None] | None = None


class Shaper:
    """Has tables and fields made. On the event loop's thread only."""

    def __init__(
        self,
        store: TableStore,
        catalogue: Catalogue,
        limits: TableLimits,
        rates: Rates,
        *,
        retention_s: float | None,
        begin: Callable[[], Awaitable[Procedures]],
    ) -> None:
        """`begin` is awaited for the procedures before one is submitted: where no service runs them, something has to."""
        self._store = store
        self._catalogue = catalogue
        self._limits = limits
        self._rates = rates
        self._retention_s = retention_s
        self._begin = begin
        self._flights: dict[str, Flight] = {}
        self._wanted: dict[str, dict[str, FieldType]] = {}
        """Fields that the next flight of a table takes along."""
        self._refused: dict[str, tuple[PointsRefusal, float]] = {}
        """By table, until when its last refusal is the answer."""

    @property
    def waiting(self) -> int:
        """The number of tables that are being made or changed."""
        return len(self._flights)

    @property
    def refused(self) -> int:
        """The number of tables whose last making was refused, as far as that is remembered."""
        return len(self._refused)

    def forget(self) -> None:
        """Forget refusals that have not been asked about for a while: whoever writes to their tables no longer does."""
        now = asyncio.get_running_loop().time()
        self._refused = {table: each for table, each in self._refused.items() if now < each[1] + FORGET_S}

    async def close(self) -> None:
        """Drop what is under way: the procedures go on, or are done by another process."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def ask(self, table: str, lacks: Mapping[str, FieldType], *, mend: bool = False) -> Flight | PointsRefusal:
        """Return the flight that may bring what a table lacks, or a refusal, which costs the store nothing.

        `mend`: have it made even if the catalogue has it all: the store has found that something is missing all the same.
        """
        now = asyncio.get_running_loop().time()
        if (refusal := self._remembered(now, table)) is not None:
            return refusal
        known = self._catalogue.get(table)
        flight = self._flights.get(table)
        if flight is not None and now - flight.began_at >= DEADLINE_S:
            return _slow(table, now - flight.began_at, flight.slow, by_cause=flight.by_cause)
        asked = {} if flight is None else flight.asked
        if flight is not None and all(asked.get(field) is value for field, value in lacks.items()):
            return flight
        if (refusal := self._limited(now, table, known, lacks, flight)) is not None:
            return refusal
        if flight is None:
            flight = self._start(now, table, {})
        wanted = self._wanted.setdefault(table, {}) if flight.is_sent else flight.asked
        for field, value in lacks.items():
            wanted.setdefault(field, value)
        flight.mends = flight.mends or mend
        return flight

    def _remembered(self, now: float, table: str) -> PointsRefusal | None:
        found = self._refused.get(table)
        if found is None:
            return None
        refusal, until = found
        return refusal if now < until else None

    def _limited(
        self, now: float, table: str, known: Known | None, lacks: Mapping[str, FieldType], flight: Flight | None
    ) -> PointsRefusal | None:
        """Return the limit that what is new meets."""
        limits = self._limits
        if known is None and flight is None:
            making = sum(each.is_new for each in self._flights.values())
            refusal = table_refusal(table, len(self._catalogue) + making, limits) or self._rates.table(now, table)
            if refusal is not None:
                return refusal
        present = set(self._wanted.get(table, ()))
        present.update(known.types if known is not None else (), flight.asked if flight is not None else ())
        new = [field for field in lacks if field not in present]
        if not new:
            return None
        if known is not None and now < known.full_until:
            return self._full(table, new[0])
        fields_max = min(limits.fields_max, self._store.fields_limit)
        refusal = fields_refusal(table, present, lacks, fields_max)
        if refusal is not None:
            return refusal
        refusals = (self._rates.field(now, table, field) for field in new)
        return next((each for each in refusals if each is not None), None)

    def _full(self, table: str, field: str) -> PointsRefusal:
        reason = (
            f"field {field!r} of table {table!r} cannot be added: the store has no room for another field of this table "
            f"(fields that were dropped may count, limit {self._store.fields_limit})"
        )
        return never("fields_max", reason, "write other things into other tables")

    def _start(self, now: float, table: str, asked: dict[str, FieldType]) -> Flight:
        flight = Flight(asked, now, is_new=self._catalogue.get(table) is None)
        self._flights[table] = flight
        flight.task = asyncio.create_task(self._fly(table, flight), name=f"outlast tables shape {table}")
        flight.task.add_done_callback(lambda _: self._landed(table))
        return flight

    def _sent(self, table: str, flight: Flight) -> None:
        """Let the flight take no more fields; those that make its payload too large go with the next."""
        flight.is_sent = True
        fields = flight.asked
        flight.asked = dict[str, FieldType]()
        size = 0
        for field, value in fields.items():
            size += len(field.encode()) + 16
            if flight.asked and size > PAYLOAD_BYTES:
                self._wanted.setdefault(table, {})[field] = value
            else:
                flight.asked[field] = value

    def _landed(self, table: str) -> None:
        flight = self._flights.pop(table)
        task = flight.task
        if task is None or task.cancelled():
            self._wanted.pop(table, None)
            return
        now = asyncio.get_running_loop().time()
        refusal = task.result()
        if refusal is not None:
            # What others wanted meanwhile is refused with it, and asked for again when they come again.
            self._wanted.pop(table, None)
            remember_s = max(REMEMBER_S, len(self._refused) / LOOKS_PER_S)
            until = now + min(remember_s, refusal.fault.retry_after_s or REMEMBER_S)
            if self._refused.pop(table, None) is None and len(self._refused) >= REMEMBERED_MAX:
                del self._refused[next(iter(self._refused))]
            self._refused[table] = (refusal, until)
            self._rates.failed(now, table, flight.asked)
            return
        self._refused.pop(table, None)
        if wanted := self._wanted.pop(table, None):
            self._start(now, table, wanted)

    # One flight.

    async def _fly(self, table: str, flight: Flight) -> PointsRefusal | None:
        """Look whether it is there by now, else have it made. Return the refusal for whoever still lacks something."""
        try:
            # Whoever comes in the same step of the event loop joins.
            await asyncio.sleep(0)
            if table not in self._refused:
                # Of one that was refused before, the procedures answer from memory.
                known = self._catalogue.told(table, await self._store.table(table))
                if known is not None and not flight.mends and not _lacking(known, flight.asked):
                    return None
            procedures = await self._begin()
            self._sent(table, flight)
            return await self._made(table, flight, procedures)
        except Stopping as exc:
            return later("stopping", str(exc), kind=Kind.STOPPING)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer to those who wait
            return self._refusal(exc)

    async def _made(self, table: str, flight: Flight, procedures: Procedures) -> PointsRefusal | None:
        fields_max = min(self._limits.fields_max, self._store.fields_limit)
        known = self._catalogue.get(table)
        # A field of floats that is asked for with an integer would be widened, and need not be.
        wanted = flight.asked if known is None or flight.mends else _lacking(known, flight.asked)
        if not wanted:
            return None
        payload = payload_of(wanted, fields_max, self._retention_s)
        handle = await procedures.submit(SHAPE_KIND, table, payload, deadline_s=FLIGHT_S_MAX, locks=[lock_of(table)])
        left_out: list[str] | None = None
        while left_out is None:
            try:
                left_out = await handle.wait(DEADLINE_S)
            except (WaitTimeoutError, ProcedureExpiredError) as exc:
                seconds = asyncio.get_running_loop().time() - flight.began_at
                told = await procedures.explain(SHAPE_KIND, table)
                flight.slow, flight.by_cause = told.fault, told.why == "cause"
                if isinstance(exc, ProcedureExpiredError) or seconds >= FLIGHT_S_MAX:
                    return _slow(table, seconds, told.fault, by_cause=flight.by_cause)
        known = self._catalogue.get(table)
        if known is None or _lacking(known, wanted):
            # It was made by another process, or not all of it: this may have been the procedure of another one.
            known = self._catalogue.told(table, await self._store.table(table))
        if known is not None and not wanted.keys().isdisjoint(left_out):
            # It was asked for, and the store has no room for it.
            known.full_until = asyncio.get_running_loop().time() + FULL_S
        return None

    def _refusal(self, exc: Exception) -> PointsRefusal:
        """Return the refusal for a making that came to nothing: a person has to act, or it may pass."""
        if isinstance(exc, ProcedureRefused):
            by_key = exc.why in {"failing", "probe", "cause"}
            outcome = PointOutcome.PERSON if by_key and exc.fault.kind in PERSON_KINDS else PointOutcome.LATER
            return PointsRefusal(outcome, waiting(exc.fault, exc.retry_after_s))
        if isinstance(exc, ProcedureFailedError):
            outcome = PointOutcome.PERSON if exc.fault.kind in PERSON_KINDS else PointOutcome.LATER
            return PointsRefusal(outcome, waiting(exc.fault, exc.fault.retry_after_s or RETRY_S))
        if isinstance(exc, InvalidProcedureError):
            return never("name", str(exc))
        if isinstance(exc, Unavailable):
            return of_unavailable(exc)
        return of_unavailable(self._store.dependency.refusal(exc))


def _lacking(known: Known, asked: Mapping[str, FieldType]) -> dict[str, FieldType]:
    return {field: value for field, value in asked.items() if field not in known.types or (known.types[field], value) == WIDENS}


def _slow(table: str, seconds: float, cause: Fault | None, *, by_cause: bool = False) -> PointsRefusal:
    if cause is not None:
        outcome = PointOutcome.PERSON if by_cause and cause.kind in PERSON_KINDS else PointOutcome.LATER
        return PointsRefusal(outcome, waiting(cause, cause.retry_after_s or RETRY_S))
    reason = f"table {table!r} has not been made or changed within {seconds:.1f} s; that goes on"
    return PointsRefusal(PointOutcome.LATER, Fault(Kind.TRANSIENT, "not made", reason, SOURCE, Scope.CALL, RETRY_S))
