"""etcd as a dependency: `Etcd`, over the JSON gateway, and the rule that classifies what it answers."""

from __future__ import annotations

from outlast.etcd._classify import NOSPACE, etcd_rule
from outlast.etcd._errors import CompactedError, EtcdError, LeaseLostError, RangeTooLargeError, RequestTooLargeError
from outlast.etcd._etcd import Etcd
from outlast.etcd._values import (
    Alarm,
    Change,
    Compare,
    Delete,
    EndpointStatus,
    Event,
    Get,
    KeyValue,
    Old,
    Op,
    Put,
    Range,
    TxnResult,
    WatchBatch,
)
from outlast.etcd._watching.follow import Following
from outlast.etcd._watching.watch import Watch

__all__ = [
    "NOSPACE",
    "Alarm",
    "Change",
    "CompactedError",
    "Compare",
    "Delete",
    "EndpointStatus",
    "Etcd",
    "EtcdError",
    "Event",
    "Following",
    "Get",
    "KeyValue",
    "LeaseLostError",
    "Old",
    "Op",
    "Put",
    "Range",
    "RangeTooLargeError",
    "RequestTooLargeError",
    "TxnResult",
    "Watch",
    "WatchBatch",
    "etcd_rule",
]
