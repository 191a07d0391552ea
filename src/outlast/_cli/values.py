"""Types of the command line: a duration, a time, JSON, names."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import click

from outlast._core.duration import parse_duration

if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
    _Moment = click.ParamType[datetime]
    _Words = click.ParamType[tuple[str, ...]]
else:
    # Older versions of click have no type argument here.
    _Seconds = _Moment = _Words = click.ParamType


class Duration(_Seconds):
    """A duration in seconds: `20s`, `1m`, `500ms`, `1.5h` or a number."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it in seconds; a usage error for anything else."""
        if isinstance(value, float | int):
            return float(value)
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Time(_Moment):
    """A moment in ISO 8601; without an offset it is local time."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return it with an offset; a usage error for anything else."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time; write it as 2026-01-31T12:00:00+01:00", param, ctx)


class Names(_Words):
    """Names separated by commas."""

    name = "names"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split at commas."""
        del param, ctx
        if isinstance(value, tuple):
            return cast("tuple[str, ...]", value)
        return tuple(part.strip() for part in str(value).split(",") if part.strip())


def read_json(text: str) -> Any:  # noqa: ANN401 - anything that is JSON
    """Parse a payload, from standard input for `-`. Raises UsageError without quoting it: payloads may hold secrets."""
    if text == "-":
        text = sys.stdin.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"the payload of {len(text)} characters is no JSON: {error.msg} at character {error.pos}."
        raise click.UsageError(msg) from None
    except (ValueError, RecursionError):
        msg = f"the payload of {len(text)} characters is nested too deeply, or holds a number that is too long."
        raise click.UsageError(msg) from None
