"""Writes of this runner on their way to the store: in batches, what it refuses apart, and their journal."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Incident, Kind, Stopping, Unavailable
from outlast.extend import Journal, Reaction, fault_record
from outlast.procedures._model import ProcedureState, Recorded, RecordWrite

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.procedures._stores.port import ProcedureStore

VERSION: Final = 1
CAUSE_MAX: Final = 20
"""After so many that were refused one by one, in a row, they are taken to have a cause in common."""
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
    """Record a batch. What the store refuses is taken to concern one write until the opposite is shown.

    A batch that is refused is halved until the write is found that is: its record is DEAD then, with the fault. What cannot be
    recorded *now* is returned, to be tried again later. What everyone would meet is raised.
    """

    def __init__(self, store: ProcedureStore, incident: Incident) -> None:
        self._store = store
        self._incident = incident
        self.late = self.refused = 0
        """Writes whose claim was over, and those that the store refused."""
        self._came_late: dict[tuple[str, int], None] = {}

    def came_late(self, write: RecordWrite) -> bool:
        """Return whether this one was late: the claim is another's. It is told once."""
        return self._came_late.pop((write.id, write.token), False) is None

    async def write(self, writes: list[RecordWrite]) -> list[RecordWrite]:
        """Record them; return those to be tried again later. Raises the faults that concern everyone."""
        try:
            await self._record(writes)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            self._refusal(exc)
        else:
            return []
        # Is it the store? Without a write there is none to refuse.
        await self._record([])
        return await self._sift(writes)

    async def _sift(self, writes: list[RecordWrite]) -> list[RecordWrite]:
        left: list[RecordWrite] = []
        parts = [writes]
        in_a_row = 0
        while parts:
            part = parts.pop()
            if in_a_row > CAUSE_MAX:
                left += part
                continue
            try:
                await self._record(part)
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
                fault = self._refusal(exc)
            else:
                in_a_row = 0
                continue
            if len(part) > 1:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
            elif fault.reaction is not Reaction.WAIT and await self._set_aside(part[0], fault):
                in_a_row = 0
            else:
                left += part
                in_a_row += 1
        return left

    async def _set_aside(self, write: RecordWrite, fault: Fault) -> bool:
        """Record it DEAD instead; return False if the store does not take that either."""
        reason = f"the store refused what procedure {write.id} has to record ({fault.reason}): it is dead"
        instead = Fault(Kind.BUG, fault.code, reason, "record", hint="correct what its step returns, or the table")
        dead = ProcedureState.DEAD.value
        try:
            await self._record(
                [
                    replace(
                        write,
                        state=dead,
                        body_json="",
                        result_json=None,
                        fault=fault_record(instead),
                        failures=1,
                        until_s=UNTIL_S,
                    )
                ]
            )
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            self._refusal(exc)
            return False
        self.refused += 1
        self._incident.fault(instead)
        return True

    def _refusal(self, exc: Exception) -> Fault:
        """Return the fault of an error that may concern one write alone; raise an error that concerns everyone."""
        if isinstance(exc, Unavailable | Stopping):
            raise exc
        dependency = self._store.dependency
        fault = dependency.classifiers.classify(exc, source=dependency.name)
        if fault.is_evidence or fault.reaction in {Reaction.END, Reaction.LEAVE}:
            raise exc
        return fault

    async def _record(self, writes: list[RecordWrite]) -> None:
        for write, recorded in zip(writes, await self._store.record(writes), strict=True):
            if recorded is Recorded.LATE:
                self.late += 1
                self._came_late[write.id, write.token] = None
                if len(self._came_late) > LATE_MAX:
                    # Those of an earlier process, which nobody asks for.
                    del self._came_late[next(iter(self._came_late))]
