"""Types of the command line: a duration, a time, a size, an address, JSON, names."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import click

from outlast._core.duration import parse_duration
from outlast._core.faults import ConfigurationError
from outlast._serve.address import parse_address

if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
    _Moment = click.ParamType[datetime]
    _Words = click.ParamType[tuple[str, ...]]
    _Bytes = click.ParamType[int]
    _Place = click.ParamType[str]
else:
    # Older versions of click have no type argument here.
    _Seconds = _Moment = _Words = _Bytes = _Place = click.ParamType

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Duration(_Seconds):
    """A duration in seconds: `20s`, `1m`, `500ms`, `1.5h`, `30d` or a number."""

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


class Size(_Bytes):
    """Bytes: `64M`, `512k`, `1.5GiB` or a number; the units are powers of 1024."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is not a size; write it as 64M, 512k, 2G or a number of bytes", param, ctx)
        return int(float(match[1]) * _UNITS[match[2]])


class Address(_Place):
    """An address to listen on: HOST:PORT, or a port of the loopback interface."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it as it is, once it can be read: a wrong one is a mistake of the command line."""
        try:
            parse_address(str(value))
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)
        return str(value)


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
