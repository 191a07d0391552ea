"""From what etcd answers to a fault: whom it concerns, and what an operator does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from outlast import Fault, Kind, Scope
from outlast.etcd._errors import EtcdError
from outlast.extend import clean

NOSPACE: Final = "NOSPACE"
"""The code of the fault of a cluster that is out of its quota: it refuses writes, and still serves reads and deletions."""
NOSPACE_HINT: Final = (
    "delete what is old (deletions are still served), then: etcdctl compact REVISION; etcdctl defrag on every member; "
    "etcdctl alarm disarm; a larger --quota-backend-bytes if that is not enough"
)
LOGIN_HINT: Final = "put user and password right, on either side"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the tables."""

    kind: Kind
    code: str
    scope: Scope
    hint: str = ""


_CALL, _ALL = Scope.CALL, Scope.DEPENDENCY
_T, _R, _P = Kind.TRANSIENT, Kind.REJECTED, Kind.PERMANENT
_STALE: Final = Row(
    _T, "token", _ALL, "the token was refused, and so was a new one: compare the clocks and tokens of the members"
)

SAID: Final[dict[str, Row]] = {
    "database space exceeded": Row(Kind.EXHAUSTED, NOSPACE, _ALL, NOSPACE_HINT),
    "too many requests": Row(Kind.OVERLOADED, "too many requests", _ALL, "etcd is behind: look at its disk, or ask for less"),
    "no leader": Row(_T, "no leader", _ALL, "the members see no majority of each other"),
    "leader changed": Row(_T, "leader changed", _ALL),
    "not leader": Row(_T, "leader changed", _ALL),
    "request timed out": Row(_T, "timed out", _ALL, "no majority has answered: look at the members and their disks"),
    "unhealthy cluster": Row(_T, "unhealthy", _ALL),
    "server stopped": Row(_T, "stopped", _ALL),
    "requested lease not found": Row(_R, "lease lost", _CALL, "grant another one"),
    "lease already exists": Row(_R, "lease exists", _CALL),
    "required revision has been compacted": Row(_R, "compacted", _CALL, "read again"),
    "authentication failed": Row(_P, "login refused", _ALL, LOGIN_HINT),
    "user name is empty": Row(_P, "no login", _ALL, "etcd wants a login: give user= and password="),
    "permission denied": Row(_P, "no permission", _CALL, "grant the user's role the keys below the prefix"),
    "invalid auth token": _STALE,
    "revision of auth store is old": _STALE,
    "revision in header is old": _STALE,
    "request is too large": Row(_R, "too large", _CALL, "write less at once; etcd's limit is --max-request-bytes"),
    "corrupt cluster": Row(_P, "CORRUPT", _ALL, "the members differ: restore the one that is wrong (etcdctl alarm list)"),
}
"""By a part of what etcd says: its texts are those of `api/v3rpc/rpctypes/error.go`, the same from 3.4 to 3.6."""

CODES: Final[dict[int, Row]] = {
    1: Row(_T, "cancelled", _CALL),
    2: Row(_T, "unknown", _CALL),
    4: Row(_T, "timed out", _ALL),
    7: Row(_P, "no permission", _CALL, "grant the user's role the keys below the prefix"),
    8: Row(Kind.OVERLOADED, "exhausted", _CALL),
    10: Row(Kind.CONTENDED, "aborted", _CALL),
    12: Row(_P, "not known", _CALL, "etcd is older than 3.4, or is none"),
    13: Row(_T, "internal", _CALL, "see etcd's log"),
    14: Row(_T, "unavailable", _ALL),
    15: Row(_P, "CORRUPT", _ALL, "see etcd's log"),
    16: Row(_P, "login refused", _ALL, LOGIN_HINT),
}
"""By the number of gRPC's status, for what stands in no row above."""
OTHER: Final = Row(_R, "", _CALL)
STALE: Final = (*(text for text, row in SAID.items() if row is _STALE), "user name is empty")
DENIED: Final = "permission denied"
EXHAUSTED: Final = 8
"""The number of gRPC's status for what there is not enough of."""


def etcd_rule(exc: BaseException, phase: str) -> Fault | None:
    """Classify an `EtcdError`; None for anything else. A rule for `outlast.Classifiers`, which `Etcd` has.

    In the phases "probe" and "connect" a fault concerns everyone who uses etcd.
    """
    if not isinstance(exc, EtcdError):
        return None
    row = _row(exc)
    fault = Fault(row.kind, row.code or f"gRPC {exc.grpc_code}", clean(exc.said), scope=row.scope, hint=row.hint)
    if phase not in {"probe", "connect"}:
        return fault
    # What is wrong with a probe stays wrong.
    return replace(fault, kind=_P if fault.kind is _R else fault.kind, scope=Scope.DEPENDENCY)


def is_stale(exc: BaseException) -> bool:
    """Return whether etcd does not know, or no longer, the token that was shown, or wants one now: it has done nothing."""
    return isinstance(exc, EtcdError) and any(text in exc.said for text in STALE)


def needs_second_look(fault: Fault) -> bool:
    """Return whether only a probe can say if a fault concerns the call or everyone: a new leader serves others already."""
    return fault.scope is Scope.DEPENDENCY and fault.kind in {Kind.TRANSIENT, Kind.OVERLOADED}


def _row(exc: EtcdError) -> Row:
    return next((row for text, row in SAID.items() if text in exc.said), None) or CODES.get(exc.grpc_code, OTHER)
