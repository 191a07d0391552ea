"""Outcomes that the database refuses: kept in a bounded file beside the journal, and logged once."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from outlast import Fault, Incident, Kind, Stopping, Unavailable
from outlast.jobs._journal import append_whole, line
from outlast.jobs._model import JobState, Outcome, fault_record

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.jobs._journal import Entry
    from outlast.postgres import Postgres

BYTES_MAX: Final = 8 * 1024 * 1024
CAUSE_MAX: Final = 20
"""After this many refused one by one, in a row, they are taken to have a cause in common: it counts against no further one."""
NOT_THE_OUTCOMES: Final = frozenset({Kind.TRANSIENT, Kind.CONTENDED, Kind.EXHAUSTED, Kind.OVERLOADED})
"""Kinds that say "not now", not "not this": a lock, a deadlock, no room."""


class Refusals:
    """The file and its incident. `keep` blocks for a disk write: call it from a thread, one at a time.

    A line holds the worker, the outcome as the journal has it, and the fault for which it was refused. At the bound, and when
    the disk does not take it, an outcome is not kept: the job is recorded dead all the same, and the log counts it. To make
    room move the file away; it is opened again for each line.
    """

    def __init__(self, path: Path, *, bytes_max: int = BYTES_MAX) -> None:
        """`path` is made when there is something to keep."""
        self.path = path
        self.bytes_max = bytes_max
        self.kept = self.lost = 0
        self.incident = Incident("jobs outcomes", verb="are refused")

    def keep(self, entry: Entry, fault: Fault) -> str:
        """Keep a refused outcome; it is on disk when this returns. Return where it is now, for people. Never raises."""
        worker, outcome = entry
        return self._write(line({"worker": worker, **asdict(outcome), "refused": fault_record(fault)}))

    def keep_lines(self, lines: list[bytes]) -> str:
        """Keep lines of the journal that cannot be read; return where the last of them is, for people."""
        return [self._write(text + b"\n") for text in lines][-1]

    def tell(self, outcome: Outcome, fault: Fault, where: str, *, dead: bool) -> None:
        """Log one ERROR for each different fault; count the others."""
        became = "is dead" if dead else "cannot even be recorded dead, and stays as it is"
        reason = f"the outcome of job {outcome.id} was refused ({fault.reason}): the job {became}, the outcome {where}"
        self.incident.fault(Fault(Kind.BUG, fault.code, reason, "outcome", hint="correct what the handler returns, or the table"))

    def _write(self, data: bytes) -> str:
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(file).st_size
                if size + len(data) <= self.bytes_max:
                    append_whole(file, data, size)
                    self.kept += 1
                    return f"is kept in {self.path}"
            finally:
                os.close(file)
        except OSError as error:
            self.lost += 1
            return f"is lost: {self.path} could not be written ({error.strerror})"
        self.lost += 1
        return f"is lost: {self.path} is full ({self.bytes_max} bytes); move it away"


def refusal(db: Postgres, exc: Exception) -> Fault:
    """Return the fault of an error that may concern one row alone; raise an error that concerns everyone."""
    if isinstance(exc, Unavailable | Stopping):
        raise exc
    fault = db.classifiers.classify(exc, source=db.name)
    if fault.is_evidence or fault.kind in {Kind.STOPPING, Kind.FATAL}:
        raise exc
    return fault


def dead_instead(outcome: Outcome, fault: Fault) -> Outcome:
    """Return what is recorded in place of a refused outcome: the job is dead, by that fault."""
    state, record = JobState.DEAD.value, fault_record(fault)
    return replace(outcome, state=state, result_json=None, fault=record, delay_s=0.0, give_back=False)
