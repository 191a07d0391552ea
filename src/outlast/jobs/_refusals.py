"""Outcomes that the database refuses: kept in a bounded file beside the journal, and logged once."""

from __future__ import annotations

import zlib
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from outlast import Fault, Incident, Kind, Stopping, Unavailable
from outlast.extend import AppendFile, Reaction, Sync
from outlast.jobs._journal import as_json
from outlast.jobs._model import JobState, Outcome, fault_record

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.jobs._journal import Entry
    from outlast.postgres import Postgres

BYTES_MAX: Final = 8 * 1024 * 1024
CAUSE_MAX: Final = 20
"""After this many refused one by one, in a row, they are taken to have a cause in common: it counts against no further one."""


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
        fields = {"worker": worker, **asdict(outcome), "refused": fault_record(fault)}
        body = as_json(fields)
        return self._write(b"%08x %s\n" % (zlib.crc32(body), body))

    def keep_damaged(self, stretches: list[bytes]) -> str:
        """Keep what cannot be read of the journal; return where the last of it is, for people."""
        return [self._write(each) for each in stretches][-1]

    def tell(self, outcome: Outcome, fault: Fault, where: str, *, dead: bool) -> None:
        """Log one ERROR for each different fault; count the others."""
        became = "is dead" if dead else "cannot even be recorded dead, and stays as it is"
        reason = f"the outcome of job {outcome.id} was refused ({fault.reason}): the job {became}, the outcome {where}"
        self.incident.fault(Fault(Kind.BUG, fault.code, reason, "outcome", hint="correct what the handler returns, or the table"))

    def _write(self, data: bytes) -> str:
        try:
            with AppendFile.open(self.path, sync=Sync.EACH) as file:
                file.cut_line()
                if file.size + len(data) <= self.bytes_max:
                    file.append(data)
                    self.kept += 1
                    return f"is kept in {self.path}"
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
    if fault.is_evidence or fault.reaction in {Reaction.END, Reaction.LEAVE}:
        raise exc
    return fault


def dead_instead(outcome: Outcome, fault: Fault) -> Outcome:
    """Return what is recorded in place of a refused outcome: the job is dead, by that fault."""
    state, record = JobState.DEAD.value, fault_record(fault)
    return replace(outcome, state=state, result_json=None, fault=record, delay_s=0.0, give_back=False)
