"""Records of stdlib logging as JSON, one object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from outlast.logs._masking.texts import said

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""The attributes that every record has; all others came with `extra`."""


class JsonLines(logging.Formatter):
    """One object a line: `time` (ISO 8601, UTC), `level`, `logger`, `message`, `exception`, `stack`, and the fields of `extra`.

    What is no JSON is written as its `str`, a number that is none as a text. It does not raise for any field of a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        for name, value in _fields(record):
            entry.setdefault(name, value)
        try:
            return json.dumps(entry, default=said, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            # A number that is none, a cycle, a key that is no text.
            return json.dumps({name: value if isinstance(value, str) else said(value) for name, value in entry.items()})


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    """Yield the fields of `extra`; ours, which come in one dict, as `outlast.count` and so on."""
    for name, value in record.__dict__.items():
        if name == "outlast" and isinstance(value, dict):
            for own, told in cast("dict[object, object]", value).items():
                yield f"outlast.{str(own).removeprefix('outlast.')}", told
        elif name not in OWN:
            yield name, value
