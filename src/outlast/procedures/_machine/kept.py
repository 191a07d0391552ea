"""The part of a record that only the step machine reads: its values, and their JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from outlast.extend import fault_of_record, fault_record
from outlast.procedures._machine.faults import UnreadableBodyError, permanent

if TYPE_CHECKING:
    from outlast import Fault

FORMAT: Final = 1
COUNT_MAX: Final = 2**53
"""Of a number in a body: as much as every reader of JSON keeps exactly."""


@dataclass(slots=True)
class Done:
    """A step that is done, and was not undone."""

    name: str
    result_json: str = "null"
    """Empty: it is not kept any more."""


@dataclass(slots=True)
class Begun:
    """The step that was begun, and is not known to be done."""

    name: str
    """Empty: a runner died in a step before its name was recorded."""
    attempts: int = 0
    """Those that failed, and those in which a runner died."""
    until_at: float | None = None
    """Of a sleep or a wait: when it ends, in the store's time."""


@dataclass(slots=True)
class Undoing:
    """The undo of what was done, once nothing goes forward any more."""

    fault: Fault | None
    """The cause; None: it was cancelled."""
    attempts: int = 0
    """Of the undo that is next."""
    last: str = ""
    """The last failure of that."""


@dataclass(slots=True)
class Kept:
    """All that a body keeps."""

    version: int
    """That of the code that recorded it."""
    done: list[Done] = field(default_factory=list[Done])
    at: Begun | None = None
    undoing: Undoing | None = None
    undone: list[str] = field(default_factory=list[str])
    """For people."""


def encode(kept: Kept, *, results: bool = True) -> str:
    """Return the JSON of a body. Results are put in as they are, since each was checked when it came; or left out."""
    head: dict[str, Any] = {"format": FORMAT, "version": kept.version}
    if kept.at is not None:
        head["at"] = {"name": kept.at.name, "attempts": kept.at.attempts, "until_at": kept.at.until_at}
    if kept.undoing is not None:
        fault = None if kept.undoing.fault is None else fault_record(kept.undoing.fault)
        head["undoing"] = {"fault": fault, "attempts": kept.undoing.attempts, "last": kept.undoing.last}
    if kept.undone:
        head["undone"] = kept.undone
    done = ", ".join(_entry(step, result=results) for step in kept.done)
    return f'{json.dumps(head)[:-1]}, "done": [{done}]}}'


def decode(text: str) -> Kept:
    """Read a body. Raises `UnreadableBodyError` for one of a newer format, and for what `encode` does not write."""
    try:
        body = json.loads(text, parse_constant=_no_number)
        found = _whole(body["format"])
        if found > FORMAT:
            raise UnreadableBodyError(_newer(found), text)
        return _kept(body)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"the steps of a record cannot be read: {type(error).__name__} {error}"
        hint = "restore the record, or cancel it and submit its key again: its steps may have had their effects"
        raise UnreadableBodyError(permanent("record damaged", reason, hint), text) from None


def _newer(found: int) -> Fault:
    reason = f"the steps of a record have format {found}; this code reads formats up to {FORMAT}"
    return permanent("newer format", reason, "run it by the newer release of outlast that wrote it")


def _kept(body: dict[str, Any]) -> Kept:
    at, undoing, undone = body.get("at"), body.get("undoing"), cast("list[Any]", body.get("undone", []))
    return Kept(
        version=_whole(body["version"]),
        done=[_done(each) for each in _of(list, body["done"])],
        at=None if at is None else Begun(_of(str, at["name"]), _whole(at["attempts"]), _moment(at["until_at"])),
        undoing=None if undoing is None else _undoing(undoing),
        undone=[_of(str, each) for each in _of(list, undone)],
    )


def _entry(step: Done, *, result: bool) -> str:
    return f"[{json.dumps(step.name)}, {step.result_json}]" if result and step.result_json else f"[{json.dumps(step.name)}]"


def _done(entry: list[Any]) -> Done:
    name, *result = _of(list, entry)
    if len(result) > 1:
        msg = f"a step has a name and a result, not {len(result)} more"
        raise ValueError(msg)
    return Done(_of(str, name), json.dumps(result[0], allow_nan=False) if result else "")


def _undoing(plain: dict[str, Any]) -> Undoing:
    fault = None if plain["fault"] is None else fault_of_record(_of(dict, plain["fault"]))
    return Undoing(fault, _whole(plain["attempts"]), _of(str, plain["last"]))


def _of(kind: type, value: Any) -> Any:  # noqa: ANN401 - anything that is JSON
    if not isinstance(value, kind):
        msg = f"{kind.__name__} expected, not {type(value).__name__}"
        raise TypeError(msg)
    return value


def _whole(value: Any) -> int:  # noqa: ANN401 - anything that is JSON
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        msg = f"a count expected, not {str(value)[:40]}"
        raise ValueError(msg)
    return value


def _moment(value: Any) -> float | None:  # noqa: ANN401 - anything that is JSON
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > COUNT_MAX:
        msg = f"a time expected, not {str(value)[:40]}"
        raise ValueError(msg)
    return float(value)


def _no_number(name: str) -> NoReturn:
    msg = f"{name} is no JSON"
    raise ValueError(msg)
