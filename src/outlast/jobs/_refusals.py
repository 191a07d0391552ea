"""Outcomes that the database refuses: kept in a bounded file beside the journal, and logged once."""

from __future__ import annotations

import zlib
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from outlast import Fault, Incident, Kind
from outlast.extend import Aside, fault_record
from outlast.jobs._journal import as_json
from outlast.jobs._model import JobState, Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.jobs._journal import Entry

BYTES_MAX: Final = 8 * 1024 * 1024


class Refusals:
    """The file and its incident. `keep` blocks for a disk write: call it from a thread, one at a time.

    A line holds the worker, the outcome as the journal has it, and the fault for which it was refused. At the bound, and when
    the disk does not take it, an outcome is not kept: the job is recorded dead all the same, and the log counts it.
    """

    def __init__(self, path: Path, *, bytes_max: int = BYTES_MAX) -> None:
        """`path` is made when there is something to keep."""
        self.aside = Aside(path, bytes_max=bytes_max)
        self.incident = Incident("jobs outcomes", verb="are refused")

    @property
    def path(self) -> Path:
        """The file."""
        return self.aside.path

    @property
    def kept(self) -> int:
        """The number of outcomes in the file, since the start."""
        return self.aside.kept

    @property
    def lost(self) -> int:
        """The number of outcomes that are not in it, since the start."""
        return self.aside.lost

    def keep(self, entry: Entry, fault: Fault) -> str:
        """Keep a refused outcome; it is on disk when this returns. Return where it is now, for people. Never raises."""
        worker, outcome = entry
        fields = {"worker": worker, **asdict(outcome), "refused": fault_record(fault)}
        body = as_json(fields)
        return self.aside.put(b"%08x %s\n" % (zlib.crc32(body), body))

    def tell(self, outcome: Outcome, fault: Fault, where: str, *, dead: bool) -> None:
        """Log one ERROR for each different fault; count the others."""
        became = "is dead" if dead else "cannot even be recorded dead, and stays as it is"
        reason = f"the outcome of job {outcome.id} was refused ({fault.reason}): the job {became}, the outcome {where}"
        self.incident.fault(Fault(Kind.BUG, fault.code, reason, "outcome", hint="correct what the handler returns, or the table"))


def dead_instead(outcome: Outcome, fault: Fault) -> Outcome:
    """Return what is recorded in place of a refused outcome: the job is dead, by that fault."""
    state, record = JobState.DEAD.value, fault_record(fault)
    return replace(outcome, state=state, result_json=None, fault=record, delay_s=0.0, give_back=False)
