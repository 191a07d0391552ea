"""The steps that are recorded beside those of the code: do they fit, and do they after a migration?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from outlast.extend import cut, to_json
from outlast.procedures._machine.faults import StepsChangedError, names, permanent
from outlast.procedures._machine.kept import Begun, Done, Kept, encode
from outlast.procedures._run import RecordedStep

if TYPE_CHECKING:
    from outlast import Fault
    from outlast.procedures._procedure import Procedure

ERROR_CHARS_MAX: Final = 200
RESULT_BYTES_MAX: Final = 64 * 1024
"""Of one result that a migration returns: as much as a step may return unless told otherwise."""


def fitting(procedure: Procedure, kept: Kept) -> Kept:
    """Return what is kept, as it goes on by the steps of this code. Raises `StepsChangedError` if it does not fit them.

    It fits if the steps that are done, and then the one that was begun, are the first steps of the code, in order and by name.
    Steps after those may have been added, taken away and renamed.
    """
    now = _migrated(procedure, kept)
    ours, count = [step.name for step in procedure.steps], len(now.done)
    following = ours[count] if count < len(ours) else ""
    at = now.at
    if [step.name for step in now.done] != ours[:count] or (at is not None and at.name not in {"", following}):
        raise StepsChangedError(_changed(procedure, kept, now), encode(kept))
    if at is not None:
        # One without a name is of a runner that died: in the next step, if there is one.
        at = replace(at, name=following) if following else None
    return replace(now, version=procedure.version, at=at)


def _migrated(procedure: Procedure, kept: Kept) -> Kept:
    """Return what is kept, with its steps mapped from their version to that of the code, where there are migrations."""
    versions = [version for version in sorted(procedure.migrations) if kept.version <= version]
    if not versions or (not kept.done and kept.at is None):
        return kept
    steps = [RecordedStep(step.name, result=json.loads(step.result_json)) for step in kept.done]
    # A step whose name was never recorded is no step of the old code's for certain: it stays what comes next.
    named = kept.at if kept.at is not None and kept.at.name else None
    if named is not None:
        steps.append(RecordedStep(named.name, done=False))
    try:
        for version in versions:
            steps = list(procedure.migrations[version](list(steps)))
        return _of_steps(kept, named, steps)
    except Exception as error:
        reason = (
            f"the migration of procedure {procedure.name!r} from version {kept.version} failed: "
            f"{type(error).__name__} {cut(str(error), ERROR_CHARS_MAX)}"
        )
        fault = permanent(
            "migration failed", reason, "mend the migration; nothing has run, and the record is tried again by itself"
        )
        raise StepsChangedError(fault, encode(kept)) from error


def _of_steps(kept: Kept, named: Begun | None, steps: list[RecordedStep]) -> Kept:
    if any(not step.done for step in steps[:-1]):
        msg = "only the last recorded step may be one that is not done"
        raise ValueError(msg)
    at = None if named is not None else kept.at
    if steps and not steps[-1].done:
        at = replace(named, name=steps[-1].name) if named is not None else Begun(steps[-1].name)
        steps = steps[:-1]
    return replace(kept, done=[Done(step.name, to_json(step.result, RESULT_BYTES_MAX)) for step in steps], at=at)


def _changed(procedure: Procedure, kept: Kept, now: Kept) -> Fault:
    recorded = [step.name for step in now.done] + ([f"{now.at.name} (begun)"] if now.at is not None and now.at.name else [])
    ours = names([step.name for step in procedure.steps])
    reason = (
        f"procedure {procedure.name!r} of version {procedure.version} has the steps {ours}; "
        f"recorded by version {kept.version} are: {names(recorded)}"
    )
    hint = (
        f"run it by the code of version {kept.version} again, or map the recorded steps: "
        f"@procedure.migrate(from_version={kept.version}) in a version above it"
    )
    return permanent("steps changed", reason, hint)
