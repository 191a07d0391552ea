"""Requests and answers of etcd's JSON gateway: base64 for bytes, strings for 64-bit numbers, and no field that is zero."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Final, assert_never

from outlast.etcd._errors import RequestTooLargeError
from outlast.etcd._values import (
    Alarm,
    Change,
    Compare,
    Delete,
    EndpointStatus,
    Event,
    Get,
    KeyValue,
    Op,
    Put,
    Range,
    TxnResult,
)
from outlast.extend import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

JSON = dict[str, Any]

KEY_BYTES_MAX: Final = 4096
VALUE_BYTES_MAX: Final = 2**20
REQUEST_BYTES_MAX: Final = 3 * 2**19
"""1.5 MiB: what a server takes by default (`--max-request-bytes`)."""
OPS_MAX: Final = 128
"""The operations of one branch that a server takes by default (`--max-txn-ops`)."""
OP_BYTES: Final = 64
"""An upper bound of the tags, lengths and numbers that an operation has beside its key and value."""


class Codec:
    """Puts every key below one prefix, and takes it off again; refuses what etcd would refuse for its size."""

    def __init__(self, prefix: bytes, source: str) -> None:
        self.prefix = prefix
        self.source = source

    # Requests.

    def span(self, prefix: bytes, beyond: bytes = b"") -> JSON:
        """Return the first and the last of the keys that begin with `prefix`, from the one after `beyond` on."""
        self._check_key(prefix)
        start = self.prefix + prefix
        first = self.prefix + beyond + b"\0" if beyond else start or b"\0"
        return {"key": text(first), "range_end": text(end_of(start))}

    def range(self, prefix: bytes, *, beyond: bytes = b"", limit: int = 0, revision: int = 0, count_only: bool = False) -> JSON:
        """Return the request for keys below a prefix; a limit of 0 is none."""
        return {**self.span(prefix, beyond), "limit": str(limit), "revision": str(revision), "count_only": count_only}

    def get(self, key: bytes, revision: int = 0) -> JSON:
        """Return the request for one key."""
        return {"key": self._key(key), "revision": str(revision)}

    def delete(self, op: Delete) -> JSON:
        """Return the request to delete a key, or all that begin with it."""
        return self.span(op.key) if op.is_prefix else {"key": self._key(op.key)}

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]) -> JSON:
        """Return the request for a transaction. Raises `RequestTooLargeError`."""
        for what, parts in (("comparisons", compare), ("operations", then), ("operations", otherwise)):
            if len(parts) > OPS_MAX:
                msg = f"a transaction has at most {OPS_MAX} {what}, not {len(parts)}: divide it"
                raise RequestTooLargeError(self.source, msg)
        size = sum(len(each.key) + len(each.value) + len(self.prefix) + OP_BYTES for each in compare)
        size += sum(self._size(op) for op in (*then, *otherwise))
        if size > REQUEST_BYTES_MAX:
            msg = f"a transaction of {size_text(size)} is larger than {size_text(REQUEST_BYTES_MAX)}, which etcd takes: divide it"
            raise RequestTooLargeError(self.source, msg)
        return {
            "compare": [self._compare(each) for each in compare],
            "success": [self._op(op) for op in then],
            "failure": [self._op(op) for op in otherwise],
        }

    def _compare(self, compare: Compare) -> JSON:
        told: JSON = {"key": self._key(compare.key), "target": compare.target, "result": compare.result}
        match compare.target:
            case "MOD":
                told["mod_revision"] = str(compare.number)
            case "CREATE":
                told["create_revision"] = str(compare.number)
            case "VALUE":
                told["value"] = text(compare.value)
        return told

    def _op(self, op: Op) -> JSON:
        match op:
            case Put(key, value, lease):
                self._check_value(value)
                return {"request_put": {"key": self._key(key), "value": text(value), "lease": str(lease)}}
            case Delete():
                return {"request_delete_range": self.delete(op)}
            case Get(key, is_prefix, limit):
                return {"request_range": self.range(key, limit=limit) if is_prefix else self.get(key)}
            case _:
                assert_never(op)

    def _size(self, op: Op) -> int:
        return len(op.key) + len(self.prefix) + OP_BYTES + (len(op.value) if isinstance(op, Put) else 0)

    def _key(self, key: bytes) -> str:
        self._check_key(key)
        if not key:
            msg = "a key of etcd has at least one byte"
            raise ValueError(msg)
        return text(self.prefix + key)

    def _check_key(self, key: bytes) -> None:
        if len(key) > KEY_BYTES_MAX:
            msg = f"a key of {size_text(len(key))} is longer than {size_text(KEY_BYTES_MAX)}: shorten it"
            raise RequestTooLargeError(self.source, msg)

    def _check_value(self, value: bytes) -> None:
        if len(value) > VALUE_BYTES_MAX:
            msg = (
                f"a value of {size_text(len(value))} is larger than {size_text(VALUE_BYTES_MAX)}: keep it elsewhere, or divide it"
            )
            raise RequestTooLargeError(self.source, msg)

    # Answers.

    def key_value(self, told: JSON) -> KeyValue:
        """Return a key as it was told, without the prefix."""
        return KeyValue(
            raw(told, "key").removeprefix(self.prefix),
            raw(told, "value"),
            number(told, "create_revision"),
            number(told, "mod_revision"),
            number(told, "version"),
            number(told, "lease"),
        )

    def read(self, told: JSON) -> Range:
        """Return the keys of an answer."""
        kvs = tuple(self.key_value(each) for each in told.get("kvs", ()))
        return Range(kvs, revision_of(told), bool(told.get("more")), number(told, "count"))

    def done(self, told: JSON) -> TxnResult:
        """Return the outcome of a transaction. `succeeded` is not there when it is false."""
        responses = tuple(self._response(each) for each in told.get("responses", ()))
        return TxnResult(bool(told.get("succeeded")), revision_of(told), responses)

    def _response(self, told: JSON) -> Range | int:
        if "response_range" in told:
            return self.read(told["response_range"])
        return number(told.get("response_delete_range", {}), "deleted")

    def events(self, told: Iterable[JSON]) -> tuple[Event, ...]:
        """Return changes in their order. The type of a put, being zero, is not there."""
        return tuple(
            Event(Change.DELETE if each.get("type") == "DELETE" else Change.PUT, self.key_value(each.get("kv", {})))
            for each in told
        )


def alarms(told: JSON) -> tuple[Alarm, ...]:
    """Return the alarms of an answer."""
    found = ((str(each.get("alarm", "NONE")), number(each, "memberID")) for each in told.get("alarms", ()))
    return tuple(Alarm(name, member) for name, member in found if name != "NONE")


def status(told: JSON) -> EndpointStatus:
    """Return what a member says of itself."""
    return EndpointStatus(
        str(told.get("version", "")),
        number(told.get("header", {}), "member_id"),
        number(told, "leader"),
        number(told, "dbSize"),
        number(told, "dbSizeInUse"),
        number(told, "dbSizeQuota") or None,
    )


def revision_of(told: JSON) -> int:
    """Return the revision of the store in the header of an answer."""
    return number(told.get("header", {}), "revision")


def number(told: Mapping[str, Any], field: str) -> int:
    """Return a number, which is not there when it is zero."""
    return int(told.get(field, 0))


def raw(told: Mapping[str, Any], field: str) -> bytes:
    """Return bytes, which are not there when there are none."""
    return b64decode(told.get(field, ""))


def text(data: bytes) -> str:
    """Return bytes as JSON holds them."""
    return b64encode(data).decode("ascii")


def end_of(prefix: bytes) -> bytes:
    """Return the first key that is behind all that begin with `prefix`; a zero byte stands for the end of all keys."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,)) if kept else b"\0"
