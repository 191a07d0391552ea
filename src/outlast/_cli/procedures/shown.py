"""Records and explanations as people read them, or as JSON. Payloads and results are cut and redacted, unless asked for."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast import OutlastError
from outlast._cli.output import dumps
from outlast.extend import clean, cut, json_or_text
from outlast.procedures import recorded_steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from outlast import Fault
    from outlast.procedures import Explanation, ProcedureRecord

PAYLOAD_CHARS_MAX: Final = 200
NAME_CHARS_MAX: Final = 60
FAULT_CHARS_MAX: Final = 120
TIME_MAX: Final = 253_402_300_799.0
"""The end of the year 9999, the last that Python writes."""
TIMES: Final = ("created_at", "due_at", "deadline_at", "began_at", "ended_at", "until_at")
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_COLOURS: Final = {"running": "cyan", "done": "green", "dead": "red", "expired": "yellow"}


def name_of(kind: str, key: str) -> str:
    """Return the name of a key, of a kind, or of everything, for people."""
    return clean(f"{kind}/{key}" if key else kind) if kind else "everything"


def of_record(record: ProcedureRecord, *, whole: bool) -> dict[str, Any]:
    """Return a record in values of JSON. Times are ISO 8601; `payload` and `result` are values if `whole`, else cut text."""
    found: dict[str, Any] = {
        "id": record.id,
        "kind": record.kind,
        "key": record.key,
        "state": record.state.value,
        "version": record.version,
        "priority": record.priority.name.lower(),
        "payload": _payload(record.payload_json, whole=whole),
        "result": None if record.result_json is None else _payload(record.result_json, whole=whole),
        "progress": clean(record.progress),
        "owner": record.owner,
        "token": record.token,
        "failures": record.failures,
        "deaths": record.deaths,
        "revivals": record.revivals,
        "steps": _steps(record, whole=whole),
        "locks": list(record.locks),
        "waits_for": record.waits_for,
        "signals": [signal.name for signal in record.signals],
        "cancel_requested": record.cancel_requested,
        "first_fault": _fault_values(record.first_fault),
        "last_fault": _fault_values(record.last_fault),
    }
    return found | {name: _iso(getattr(record, name)) for name in TIMES}


def of_explanation(found: Explanation) -> dict[str, Any]:
    """Return an explanation in values of JSON."""
    return {
        "kind": found.kind,
        "key": found.key,
        "id": found.id,
        "state": None if found.state is None else found.state.value,
        "why": found.why,
        "text": clean(found.text),
        "first_cause": _of_fault(found.fault),
        "last": _of_fault(found.last),
        "since_s": round(found.since_s, 3),
        "retry_after_s": round(found.retry_after_s, 3),
        "clears": found.clears,
    }


def print_records(records: Sequence[ProcedureRecord], *, whole: bool) -> None:
    """Print one line a record, with its last fault and its progress below it."""
    if not records:
        click.echo("no records")
        return
    rows = [("procedure", "state", "age", "due", "id"), *map(_row, records)]
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    for row, record in zip(rows, [None, *records], strict=True):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, (*widths, 0), strict=True)]
        if record is not None:
            cells[1] = click.style(cells[1], fg=_COLOURS.get(record.state.value))
        click.echo("  ".join(cells))
        for note in () if record is None else _notes(record, whole=whole):
            click.echo(f"    {note}")


def _row(record: ProcedureRecord) -> tuple[str, ...]:
    due = "" if record.due_at is None or record.due_at <= record.read_at else f"in {lasting(record.due_at - record.read_at)}"
    name = cut(name_of(record.kind, record.key), NAME_CHARS_MAX)
    return name, record.state.value, lasting(record.read_at - record.created_at), due, record.id


def _notes(record: ProcedureRecord, *, whole: bool) -> Iterator[str]:
    if record.last_fault:
        times = f"failed {_times(record.failures)}, last: " if record.failures else "last fault: "
        yield times + fault_text(record.last_fault, FAULT_CHARS_MAX)
    if record.waits_for:
        yield clean(f"waits for the signal {record.waits_for}")
    if record.progress:
        yield clean(record.progress)
    if whole:
        yield record.payload_json


def print_record(record: ProcedureRecord, *, whole: bool) -> None:
    """Print a line for each thing there is to say of a record."""
    for name, text in _lines(record, whole=whole):
        if text:
            click.echo(f"{name + ':':<14}{text}")


def _lines(record: ProcedureRecord, *, whole: bool) -> Iterator[tuple[str, str]]:
    yield "record", f"{name_of(record.kind, record.key)} ({record.id}), version {record.version}"
    asked = ", asked to end" if record.cancel_requested else ""
    yield "state", f"{record.state.value}{asked}, priority {record.priority.name.lower()}"
    yield "steps", _steps_line(record)
    yield "progress", clean(record.progress)
    yield "waits for", clean(record.waits_for)
    yield "signals", clean(", ".join(signal.name for signal in record.signals))
    yield "locks", clean(", ".join(record.locks))
    yield "runner", f"{record.owner} (token {record.token})" if record.owner else ""
    yield "failed", _times(record.failures) + (" in a row" if record.failures > 1 else "") if record.failures else ""
    yield "first fault", fault_text(record.first_fault)
    yield "last fault", fault_text(record.last_fault)
    for name in TIMES:
        moment: float | None = getattr(record, name)
        if moment is not None:
            yield name.removesuffix("_at"), f"{_iso(moment)} ({_since(moment - record.read_at)})"
    yield "payload", _text(record.payload_json, whole=whole)
    yield "result", "" if record.result_json is None else _text(record.result_json, whole=whole)


def print_explanation(found: Explanation) -> None:
    """Print a line for each thing that is known."""
    state = "no record" if found.state is None else f"{found.state.value} ({found.id})"
    rows = [
        ("key", f"{name_of(found.kind, found.key)}: {state}"),
        ("why", f"{found.why}: {clean(found.text)}" if found.why else clean(found.text)),
        ("first cause", _fault_line(found.fault)),
        ("last fault", _fault_line(found.last)),
        ("since", lasting(found.since_s) if found.since_s else ""),
        ("retry after", lasting(found.retry_after_s) if found.retry_after_s else ""),
        ("clears it", found.clears),
    ]
    for name, text in rows:
        if text:
            click.echo(f"{name + ':':<14}{text}")


def print_counts(counted: Mapping[str, Mapping[str, int]], states: Sequence[str]) -> None:
    """Print one line a kind."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("kind", no_wrap=True)
    for state in states:
        table.add_column(state, justify="right", no_wrap=True)
    for kind, by_state in counted.items():
        numbers = [Text(f"{by_state[state]:,}", style=_COLOURS.get(state, "") if by_state[state] else "dim") for state in states]
        table.add_row(Text(clean(kind, NAME_CHARS_MAX)), *numbers)
    Console().print(table if counted else "no records")


def lasting(seconds: float) -> str:
    """Return a duration in the largest unit that fits: `12 s`, `3 min`, `5 h`, `2 d`."""
    unit_s, unit = next((pair for pair in _UNITS if seconds >= pair[0]), (1, "s"))
    return f"{int(seconds // unit_s)} {unit}" if seconds > 0 else "0 s"


def fault_text(record: Mapping[str, Any] | None, chars_max: int = 300) -> str:
    """Return a stored fault on one line: `permanent 42P01 no such table (warehouse)`."""
    if not record:
        return ""
    source = f" ({record['source']})" if record.get("source") else ""
    return clean(f"{record.get('kind', '')} {record.get('code', '')} {record.get('reason', '')}{source}", chars_max)


def _steps(record: ProcedureRecord, *, whole: bool) -> dict[str, Any] | None:
    """Return the steps of a record in values of JSON; None if they cannot be read, or a newer version has recorded them."""
    try:
        found = recorded_steps(record)
    except OutlastError:
        return None
    return {
        "done": [
            {"name": step.name} | ({"result": _payload(dumps(step.result), whole=whole)} if found.has_results else {})
            for step in found.steps
            if step.done
        ],
        "begun": next((step.name for step in found.steps if not step.done), None),
        "attempts": found.attempts,
        "undoing": found.undoing,
        "undone": list(found.undone),
    }


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _steps_line(record: ProcedureRecord) -> str:
    found = _steps(record, whole=False)
    if found is None:
        return "they cannot be read by this version"
    done = [step["name"] for step in found["done"]]
    parts = [f"{', '.join(done)} done"] if done else []
    if found["begun"]:
        attempts = f", failed {_times(found['attempts'])}" if found["attempts"] else ""
        parts.append(f"{found['begun']} begun{attempts}")
    if found["undoing"]:
        parts.append(f"undone: {', '.join(found['undone']) or 'none yet'}")
    return clean("; ".join(parts))


def _fault_line(fault: Fault | None) -> str:
    return "" if fault is None else fault_text(_of_fault(fault))


def _of_fault(fault: Fault | None) -> dict[str, Any] | None:
    if fault is None:
        return None
    return _fault_values({"kind": fault.kind.value} | {name: value for name, value in asdict(fault).items() if name in _FAULT})


_FAULT: Final = frozenset({"code", "reason", "source", "hint"})


def _fault_values(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if record is None else {name: clean(str(value)) for name, value in record.items()}


def _payload(text: str, *, whole: bool) -> Any:  # noqa: ANN401 - anything that is JSON
    return json_or_text(text) if whole else clean(text, PAYLOAD_CHARS_MAX)


def _text(text: str, *, whole: bool) -> str:
    return text if whole else clean(text, PAYLOAD_CHARS_MAX)


def _iso(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(min(max(moment, 0.0), TIME_MAX), UTC).isoformat(timespec="milliseconds")


def _since(seconds: float) -> str:
    return f"in {lasting(seconds)}" if seconds > 0 else f"{lasting(-seconds)} ago"
