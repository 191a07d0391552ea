"""The words of OpenTSDB for what came of a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from outlast.tables._http.answers import Answer, Refused, retry_after, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.tables._model import PointRefusal, Written

CONTENT: Final = (b"content-type", b"application/json; charset=UTF-8")
NO_CONTENT: Final = Answer(204)
ECHO_CHARACTERS_MAX: Final = 300
"""Characters of a text of a point that is told back."""
ECHO_TAGS_MAX: Final = 50
_DETAILS: Final = {
    400: "The errors are in this answer, one for each data point.",
    429: "Send it again after the seconds of Retry-After; what was stored may be sent again too.",
    503: "Send it again after the seconds of Retry-After; what was stored may be sent again too.",
}


def said(refused: Refused) -> Answer:
    """Return an error in the shape of OpenTSDB: `{"error": {"code": ..., "message": ...}}`."""
    members = {"error": {"code": refused.status, "message": refused.text}}
    headers = (CONTENT, *refused.headers, *retry_after(refused.retry_after_s))
    return Answer(refused.status, json.dumps(members).encode(), headers)


def put(written: Written, points: Sequence[Any], query: Mapping[str, str]) -> Answer:
    """Return the answer to `/api/put`. `points` are those of the body as they came.

    All stored: 204, or 200 with what `?summary` or `?details` ask for. Anything else: `success`, `failed`, and in `errors` the
    first 1,000 data points with their reasons; `error` says it as OpenTSDB does.
    """
    found = verdict(written)
    summary: dict[str, Any] = {"success": written.stored, "failed": written.points - written.stored}
    if found.status == 204:
        if "details" in query:
            return _json(200, {**summary, "errors": []})
        return _json(200, summary) if "summary" in query else NO_CONTENT
    message = "One or more data points had errors"
    if found.cause is not None and found.status != 400:
        message = found.cause.reason
    summary["errors"] = [_error(refusal, points) for refusal in written.refused]
    summary["error"] = {"code": found.status, "message": message, "details": _DETAILS[found.status]}
    return _json(found.status, summary, *retry_after(found.retry_after_s))


def _json(status: int, members: Mapping[str, Any], *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, json.dumps(members).encode(), (CONTENT, *headers))


def _error(refusal: PointRefusal, points: Sequence[Any]) -> dict[str, Any]:
    return {"datapoint": _echo(points[refusal.place]), "error": refusal.reason}


def _echo(point: object) -> dict[str, Any] | None:
    """Return a point as it came, cut; its value is a text, as OpenTSDB has it. None for what was no object."""
    if not isinstance(point, dict):
        return None
    asked = cast("dict[str, Any]", point)
    echo: dict[str, Any] = {name: _cut(asked[name]) for name in ("metric", "timestamp", "value") if asked.get(name) is not None}
    tags = asked.get("tags")
    if isinstance(tags, dict):
        pairs = list(cast("dict[str, Any]", tags).items())[:ECHO_TAGS_MAX]
        echo["tags"] = {name[:ECHO_CHARACTERS_MAX]: _cut(value) for name, value in pairs}
    if "timestamp" in echo and isinstance(asked["timestamp"], int) and abs(asked["timestamp"]) < 2**63:
        echo["timestamp"] = asked["timestamp"]
    return echo


def _cut(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # An object or an array that stands where a text is wanted: its size is not bounded, so it is not written out.
    return str(value)[:ECHO_CHARACTERS_MAX] if isinstance(value, str | int | float) else type(value).__name__
