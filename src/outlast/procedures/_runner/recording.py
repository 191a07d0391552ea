"""Writes of this runner on their way to the store: in batches, what it refuses apart, and their journal."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind
from outlast.extend import Journal, Reaction, Sieve, fault_of_call, fault_record
from outlast.procedures._model import ProcedureState, Recorded, RecordWrite

if TYPE_CHECKING:
    from pathlib import Path

    from outlast import Incident
    from outlast.procedures._stores.port import ProcedureStore
    from outlast.procedures._tally import Tally

VERSION: Final = 1
STATES: Final = frozenset(state.value for state in ProcedureState)
LATE_MAX: Final = 1_000
UNTIL_S: Final = 900.0
"""The backoff of a key whose write the store refuses: a person has to look."""


def writes_journal(path: Path, **limits: int) -> Journal[RecordWrite]:
    """Return the journal of a runner; `limits` are `records_max` and `bytes_max`."""
    return Journal(path, "procedures", encode=encode, decode=decode, version=VERSION, **limits)


def encode(write: RecordWrite) -> bytes:
    """Return one write as a record of the journal."""
    return json.dumps(asdict(write), separators=(",", ":"), ensure_ascii=True).encode()


def decode(record: bytes) -> RecordWrite:
    """Return the write of a record. Raises `ValueError`."""
    try:
        fields: dict[str, Any] = json.loads(record)
        fields["took_signals"] = tuple(fields["took_signals"])
        write = RecordWrite(**fields)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("it is no write of a procedure") from error
    wanted = ((write.id, str), (write.token, int), (write.body_json, str), (write.result_json, str | None))
    if write.state in STATES and all(isinstance(value, kind) for value, kind in wanted):
        return write
    raise ValueError("its fields are not of the types of a write's")


class Writing:
    """Record a batch. A write that the store refuses is found out one by one: its record is DEAD then, with the fault.

    What cannot be recorded *now* is returned, to be tried again later; what everyone would meet is raised.
    """

    def __init__(self, store: ProcedureStore, incident: Incident, tally: Tally) -> None:
        self._store = store
        self._incident = incident
        self._tally = tally
        self._came_late: dict[tuple[str, int], None] = {}
        self._sieve = Sieve(store.dependency, self._record, self._set_aside)

    @property
    def late(self) -> int:
        """The number of writes whose claim was over."""
        return self._tally.late

    def came_late(self, write: RecordWrite) -> bool:
        """Return whether this one was late: the claim is another's. It is answered once."""
        return self._came_late.pop((write.id, write.token), False) is None

    async def write(self, writes: list[RecordWrite]) -> list[RecordWrite]:
        """Record them; return those to be tried again later. Raises the faults that concern everyone."""
        return await self._sieve.record(writes)

    async def _set_aside(self, write: RecordWrite, fault: Fault) -> bool:
        """Record it DEAD instead; return False if it is not the write that is refused, or the store does not take that either."""
        if fault.reaction is Reaction.WAIT:
            return False
        reason = f"the store refused what procedure {write.id} has to record ({fault.reason}): it is dead"
        instead = Fault(Kind.BUG, fault.code, reason, "record", hint="correct what its step returns, or the table")
        dead = replace(
            write,
            state=ProcedureState.DEAD.value,
            body_json="",
            result_json=None,
            fault=fault_record(instead),
            failures=1,
            until_s=UNTIL_S,
        )
        try:
            await self._record([dead])
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            fault_of_call(self._store.dependency, exc)
            return False
        self._incident.fault(instead)
        return True

    async def _record(self, writes: list[RecordWrite]) -> None:
        for write, recorded in zip(writes, await self._store.record(writes), strict=True):
            if recorded is Recorded.LATE:
                self._tally.late += 1
                self._came_late[write.id, write.token] = None
                if len(self._came_late) > LATE_MAX:
                    # Those of an earlier process, which nobody asks for.
                    del self._came_late[next(iter(self._came_late))]
