"""The words of InfluxDB 1, 2 and 3 for what came of a write: the same outcome in three shapes."""

from __future__ import annotations

import json
import re
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from outlast.tables._http.answers import JSON, Answer, Refused, retry_after, verdict

if TYPE_CHECKING:
    from outlast.tables._http.answers import Headers, Verdict
    from outlast.tables._model import PointRefusal, Written

VERSION: Final = "1.8.10"
"""The version that clients are told: the last of those that speak the protocols of 1 and 2. Some stop without one."""
BUILD: Final = "outlast"
SAID: Final = ((b"x-influxdb-version", VERSION.encode()), (b"x-influxdb-build", BUILD.encode()))
"""The headers of every answer."""
NO_CONTENT: Final = Answer(204, b"", SAID)
REASONS_MAX: Final = 5
"""The refusals of a body whose reasons are said in one line, for 1 and 2."""
HEADER_BYTES_MAX: Final = 1_024
"""The bytes of an error that the original puts into a header."""
_UNFIT: Final = re.compile("[^ -~]")
"""The characters that no header has: control characters, and all that is not ASCII."""
_CODES: Final = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    413: "request too large",
    415: "invalid",
    429: "too many requests",
    503: "unavailable",
}
"""The codes of errors in InfluxDB 2."""


def said_1(refused: Refused) -> Answer:
    """Return an error in the shape of InfluxDB 1: `{"error": ...}`, and a header that some clients read instead."""
    text = _UNFIT.sub("?", refused.text[:HEADER_BYTES_MAX])
    return _answer(refused, {"error": refused.text}, (b"x-influxdb-error", text.encode()))


def said_2(refused: Refused) -> Answer:
    """Return an error in the shape of InfluxDB 2: `{"code": ..., "message": ...}`."""
    code = _CODES.get(refused.status, "internal error")
    return _answer(refused, {"code": code, "message": refused.text}, (b"x-platform-error-code", code.encode()))


def said_3(refused: Refused) -> Answer:
    """Return an error in the shape of InfluxDB 3: `{"error": ...}`."""
    return _answer(refused, {"error": refused.text})


def _answer(refused: Refused, members: dict[str, object], *headers: tuple[bytes, bytes]) -> Answer:
    body = json.dumps(members).encode() + b"\n"
    return Answer(refused.status, body, (*SAID, JSON, *headers, *refused.headers, *retry_after(refused.retry_after_s)))


def written_1(written: Written, whole: bool = False) -> Answer:  # noqa: FBT001, FBT002 - one form for the three
    """Return what `/write` answers to a body: 204 alone says that all of it is stored."""
    refused = _refused(written, verdict(written, whole=whole))
    return NO_CONTENT if refused is None else said_1(refused)


def written_2(written: Written, whole: bool = False) -> Answer:  # noqa: FBT001, FBT002 - as above
    """Return what `/api/v2/write` answers to a body: 204 alone says that all of it is stored."""
    refused = _refused(written, verdict(written, whole=whole))
    return NO_CONTENT if refused is None else said_2(refused)


def written_3(written: Written, whole: bool = False) -> Answer:  # noqa: FBT001, FBT002 - as above
    """Return what `/api/v3/write_lp` answers to a body: each refused line with its number and its reason.

    `whole`: the client has asked to store nothing if anything is refused.
    """
    refused = _refused(written, verdict(written, whole=whole))
    if refused is None:
        return NO_CONTENT
    if refused.status != 400:
        return said_3(refused)
    lines = [
        {"line_number": refusal.place, "original_line": refusal.text, "error_message": refusal.reason}
        for refusal in written.refused
    ]
    # Clients know a refusal of lines by these two texts.
    error = "parsing failed for write_lp endpoint" if whole else "partial write of line protocol occurred"
    return _answer(Refused(400, error), {"error": error, "data": lines})


def _refused(written: Written, found: Verdict) -> Refused | None:
    return None if found.status == 204 else Refused(found.status, _partial(written, found.cause), found.retry_after_s)


def _partial(written: Written, cause: PointRefusal | None) -> str:
    """Return the text of a partial write: the refusal that decided it first. Collectors know by it not to send again."""
    first = [] if cause is None else [cause]
    others = (refusal for refusal in written.refused if refusal is not cause)
    reasons = [_reason(refusal) for refusal in islice(chain(first, others), REASONS_MAX)]
    dropped = written.points - written.stored
    more = f" (and {dropped - len(reasons):,} more)" if dropped > len(reasons) else ""
    return f"partial write: {'; '.join(reasons)}{more} dropped={dropped}"


def _reason(refusal: PointRefusal) -> str:
    reason = refusal.reason
    return reason if reason.startswith("line ") else f"line {refusal.place}: {reason}"


def joined(*headers: Headers) -> Headers:
    """Return the headers of an answer that is no error."""
    return (*SAID, *(header for some in headers for header in some))
