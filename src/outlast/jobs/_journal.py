"""Outcomes that could not be recorded, because the database was away when they came about, as records of a journal."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from outlast.extend import Journal
from outlast.jobs._model import JobState, Outcome

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = 2
"""1 kept the result itself, also one that the database then refused; 2 keeps its JSON text."""

Entry = tuple[str, Outcome]
"""The worker process that ran the job (its uuid), and the outcome."""

STATES: Final = frozenset(state.value for state in JobState)


def outcomes_journal(path: Path, **limits: int) -> Journal[Entry]:
    """Return the journal of a worker process; `limits` are `records_max` and `bytes_max`."""
    return Journal(path, "jobs", encode=encode, decode=decode, version=VERSION, **limits)


def as_json(fields: dict[str, Any]) -> bytes:
    """Return JSON in ASCII, on one line."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode()


def encode(entry: Entry) -> bytes:
    """Return one entry as a record of the journal."""
    worker, outcome = entry
    return as_json({"worker": worker, **asdict(outcome)})


def decode(record: bytes) -> Entry:
    """Return the entry of a record of this version or an earlier one. Raises `ValueError`."""
    try:
        fields = json.loads(record)
        worker = fields.pop("worker")
        if "result" in fields:
            result = fields.pop("result")
            fields["result_json"] = None if result is None else json.dumps(result)
        outcome = Outcome(**fields)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("it is no outcome of a job") from error
    if not _is_plain(worker, outcome):
        raise ValueError("its fields are not of the types of an outcome's")
    return worker, outcome


def _is_plain(worker: object, outcome: Outcome) -> bool:
    """Return whether the fields are of their types: a line with a right checksum may still be of another version."""
    wanted = (
        (worker, str),
        (outcome.id, int),
        (outcome.attempt, int),
        (outcome.result_json, str | None),
        (outcome.delay_s, int | float),
        (outcome.give_back, bool),
    )
    is_fault = outcome.fault is None or isinstance(outcome.fault, dict)  # pyright: ignore[reportUnnecessaryIsInstance] # of a file
    return is_fault and outcome.state in STATES and all(isinstance(value, kind) for value, kind in wanted)
