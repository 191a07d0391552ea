"""A reader of server-sent events that knows nothing of how they are written: the rules of the standard, byte by byte."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Got:
    """One event as a browser would dispatch it."""

    event: str
    data: bytes


def events(stream: bytes) -> list[Got]:
    """Return the events of a stream; what its last one lacks the empty line for is not dispatched."""
    got: list[Got] = []
    event, data = "", list[bytes]()
    for line in re.split(rb"\r\n|\r|\n", stream)[:-1]:
        if not line:
            if data:
                got.append(Got(event, b"\n".join(data)))
            event, data = "", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            event = value.decode()
        elif field == b"data":
            data.append(value)
    return got


def of(stream: bytes, event: str) -> list[bytes]:
    """Return the data of the events of one kind."""
    return [each.data for each in events(stream) if each.event == event]


def controls(stream: bytes) -> list[dict[str, Any]]:
    """Return the members of its control events."""
    return [json.loads(data) for data in of(stream, "control")]
