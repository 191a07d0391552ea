"""The answers beside the protocol: JSON, in one piece."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from outlast.streams._node.answers import NO_STORE, answer

if TYPE_CHECKING:
    from outlast.streams._model import Record
    from outlast.streams._node.requests import Request

TYPE: Final = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: a value of JSON, or None for no body."""

    value: Any = None
    status: int = 200

    async def send(self, request: Request) -> None:
        """Send it. HEAD has the headers of GET, and no body."""
        if self.value is None:
            await answer(request.send, 204, [NO_STORE])
            return
        body = json.dumps(self.value, ensure_ascii=False, separators=(",", ":")).encode()
        await answer(request.send, self.status, [TYPE, NO_STORE], body, head=request.method == "HEAD")


def moment(seconds: float) -> str:
    """Return a time, in seconds since 1970, as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def of_record(record: Record) -> dict[str, Any]:
    """Return a record in values of JSON. Bytes that are no UTF-8 are `data_base64` in place of `data`."""
    found: dict[str, Any] = {"position": record.position, "time": moment(record.time)}
    try:
        found["data"] = record.data.decode()
    except UnicodeDecodeError:
        found["data_base64"] = base64.b64encode(record.data).decode()
    return found | ({"headers": dict(record.headers)} if record.headers else {})
