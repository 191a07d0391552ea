"""Change streams of PostgreSQL: logical replication that outlasts the outages of its database.

    changes = Changes(db, "shop", sink=PostgresSink(warehouse))
    changes.attach(service)

The names below are loaded when they are first used: decoding needs no driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.lazily import lazily

if TYPE_CHECKING:
    from outlast.changes.epochs import FencedError as FencedError
    from outlast.changes.json_sink import JsonLinesSink as JsonLinesSink
    from outlast.changes.json_sink import StdoutSink as StdoutSink
    from outlast.changes.messages import UNCHANGED as UNCHANGED
    from outlast.changes.messages import BinaryValue as BinaryValue
    from outlast.changes.messages import Change as Change
    from outlast.changes.messages import Column as Column
    from outlast.changes.messages import Delete as Delete
    from outlast.changes.messages import Insert as Insert
    from outlast.changes.messages import Message as Message
    from outlast.changes.messages import Origin as Origin
    from outlast.changes.messages import Relation as Relation
    from outlast.changes.messages import ReplicaIdentity as ReplicaIdentity
    from outlast.changes.messages import Truncate as Truncate
    from outlast.changes.messages import Update as Update
    from outlast.changes.monitor import Monitor as Monitor
    from outlast.changes.pgoutput import Decoder as Decoder
    from outlast.changes.poison import RefusedError as RefusedError
    from outlast.changes.poison import StreamOverError as StreamOverError
    from outlast.changes.postgres_sink import PostgresSink as PostgresSink
    from outlast.changes.quarantine import Quarantine as Quarantine
    from outlast.changes.quarantine import QuarantineFullError as QuarantineFullError
    from outlast.changes.reading import PgOutputError as PgOutputError
    from outlast.changes.setup import Findings as Findings
    from outlast.changes.setup import NotReadyError as NotReadyError
    from outlast.changes.setup import drop_slot as drop_slot
    from outlast.changes.setup import examine as examine
    from outlast.changes.setup import set_up as set_up
    from outlast.changes.sink import Delivery as Delivery
    from outlast.changes.sink import Sink as Sink
    from outlast.changes.slot_watch import Report as Report
    from outlast.changes.slot_watch import SlotState as SlotState
    from outlast.changes.slot_watch import Thresholds as Thresholds
    from outlast.changes.spool import FileSpool as FileSpool
    from outlast.changes.spool import MemorySpool as MemorySpool
    from outlast.changes.spool import Spool as Spool
    from outlast.changes.spool import SpoolFullError as SpoolFullError
    from outlast.changes.standby import Standby as Standby
    from outlast.changes.standby import StandbyState as StandbyState
    from outlast.changes.stream import Changes as Changes
    from outlast.changes.transactions import Assembler as Assembler
    from outlast.changes.transactions import Transaction as Transaction
    from outlast.changes.transactions import TransactionPart as TransactionPart
    from outlast.changes.values import Interval as Interval
    from outlast.postgres.replication_lsn import format_lsn as format_lsn
    from outlast.postgres.replication_lsn import parse_lsn as parse_lsn

_HOMES = {
    "Assembler": "transactions",
    "BinaryValue": "messages",
    "Change": "messages",
    "Changes": "stream",
    "Column": "messages",
    "Decoder": "pgoutput",
    "Delete": "messages",
    "Delivery": "sink",
    "FencedError": "epochs",
    "FileSpool": "spool",
    "Findings": "setup",
    "Insert": "messages",
    "Interval": "values",
    "JsonLinesSink": "json_sink",
    "MemorySpool": "spool",
    "Message": "messages",
    "Monitor": "monitor",
    "NotReadyError": "setup",
    "Origin": "messages",
    "PgOutputError": "reading",
    "PostgresSink": "postgres_sink",
    "Quarantine": "quarantine",
    "QuarantineFullError": "quarantine",
    "RefusedError": "poison",
    "Relation": "messages",
    "ReplicaIdentity": "messages",
    "Report": "slot_watch",
    "Sink": "sink",
    "SlotState": "slot_watch",
    "Spool": "spool",
    "SpoolFullError": "spool",
    "Standby": "standby",
    "StandbyState": "standby",
    "StdoutSink": "json_sink",
    "StreamOverError": "poison",
    "Thresholds": "slot_watch",
    "Transaction": "transactions",
    "TransactionPart": "transactions",
    "Truncate": "messages",
    "UNCHANGED": "messages",
    "Update": "messages",
    "drop_slot": "setup",
    "examine": "setup",
    "format_lsn": "outlast.postgres.replication_lsn",
    "parse_lsn": "outlast.postgres.replication_lsn",
    "set_up": "setup",
}

__all__ = [
    "UNCHANGED",
    "Assembler",
    "BinaryValue",
    "Change",
    "Changes",
    "Column",
    "Decoder",
    "Delete",
    "Delivery",
    "FencedError",
    "FileSpool",
    "Findings",
    "Insert",
    "Interval",
    "JsonLinesSink",
    "MemorySpool",
    "Message",
    "Monitor",
    "NotReadyError",
    "Origin",
    "PgOutputError",
    "PostgresSink",
    "Quarantine",
    "QuarantineFullError",
    "RefusedError",
    "Relation",
    "ReplicaIdentity",
    "Report",
    "Sink",
    "SlotState",
    "Spool",
    "SpoolFullError",
    "Standby",
    "StandbyState",
    "StdoutSink",
    "StreamOverError",
    "Thresholds",
    "Transaction",
    "TransactionPart",
    "Truncate",
    "Update",
    "drop_slot",
    "examine",
    "format_lsn",
    "parse_lsn",
    "set_up",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
