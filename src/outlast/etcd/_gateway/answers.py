"""The answers of the gateway: what they hold, or the error that they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from outlast.etcd._errors import OUT_OF_RANGE, CompactedError, EtcdError, LeaseLostError
from outlast.http import AnswerError

if TYPE_CHECKING:
    from outlast.http import Answer

JSON = dict[str, Any]

COMPACTED = "required revision has been compacted"


def content(asked: str, answer: Answer) -> JSON:
    """Return what an answer holds. Raises `EtcdError`, and `AnswerError` for what is none of etcd's."""
    # Calls that are streams to etcd, the renewal of a lease for one, are answered by a line for each message.
    told = decoded(answer.body.rstrip().rpartition(b"\n")[2])
    if told is None:
        raise AnswerError(asked, answer)
    error = error_in(asked, told)
    if error is not None:
        raise error
    if answer.status != 200:
        raise AnswerError(asked, answer)
    result = told.get("result", told)
    return cast("JSON", result) if isinstance(result, dict) else {}


def decoded(line: bytes) -> JSON | None:
    """Return the JSON object of a line, or None."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("JSON", told) if isinstance(told, dict) else None


def error_in(asked: str, told: JSON) -> EtcdError | None:
    """Return the error that an answer, or a message of a stream, is. Each version of the gateway has its own form."""
    error = told.get("error")
    if isinstance(error, dict):
        inner = cast("JSON", error)
        return error_for(asked, _int(inner.get("grpc_code", inner.get("code"))), str(inner.get("message", "")))
    if "code" in told and ("error" in told or "message" in told):
        return error_for(asked, _int(told["code"]), str(told.get("message") or error))
    return None


def error_for(asked: str, code: int, said: str, compacted: int = 0) -> EtcdError:
    """Return the error of a status of gRPC's and its text."""
    if compacted or (code == OUT_OF_RANGE and "compacted" in said):
        # Of a watch 3.4 says the revision alone.
        return CompactedError(asked, OUT_OF_RANGE, said or COMPACTED, compacted)
    if "requested lease not found" in said:
        return LeaseLostError(asked, code, said)
    return EtcdError(asked, code, said or "etcd ended it, and does not say why")


def _int(value: object) -> int:
    return value if isinstance(value, int) else 2
