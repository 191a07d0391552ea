"""Change streams of PostgreSQL: logical replication that outlasts the outages of its database.

    changes = Changes(db, "shop", sink=PostgresSink(warehouse))
    changes.attach(service)

The names below are loaded when they are first used: decoding needs no driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast.changes._decoding.decoder import Decoder as Decoder
    from outlast.changes._decoding.messages import UNCHANGED as UNCHANGED
    from outlast.changes._decoding.messages import Change as Change
    from outlast.changes._decoding.messages import Column as Column
    from outlast.changes._decoding.messages import Delete as Delete
    from outlast.changes._decoding.messages import Insert as Insert
    from outlast.changes._decoding.messages import Message as Message
    from outlast.changes._decoding.messages import Origin as Origin
    from outlast.changes._decoding.messages import Relation as Relation
    from outlast.changes._decoding.messages import ReplicaIdentity as ReplicaIdentity
    from outlast.changes._decoding.messages import Truncate as Truncate
    from outlast.changes._decoding.messages import Update as Update
    from outlast.changes._decoding.payload import PgOutputError as PgOutputError
    from outlast.changes._decoding.spool import FileSpool as FileSpool
    from outlast.changes._decoding.spool import MemorySpool as MemorySpool
    from outlast.changes._decoding.spool import Spool as Spool
    from outlast.changes._decoding.spool import SpoolFullError as SpoolFullError
    from outlast.changes._decoding.transactions import Assembler as Assembler
    from outlast.changes._decoding.transactions import Transaction as Transaction
    from outlast.changes._decoding.transactions import TransactionPart as TransactionPart
    from outlast.changes._decoding.values import Interval as Interval
    from outlast.changes._policies import DeliveryPolicy as DeliveryPolicy
    from outlast.changes._policies import OwnerPolicy as OwnerPolicy
    from outlast.changes._policies import SourcePolicy as SourcePolicy
    from outlast.changes._sinks.json_lines import JsonLinesSink as JsonLinesSink
    from outlast.changes._sinks.json_lines import StdoutSink as StdoutSink
    from outlast.changes._sinks.poison import RefusedError as RefusedError
    from outlast.changes._sinks.poison import StreamOverError as StreamOverError
    from outlast.changes._sinks.port import Copying as Copying
    from outlast.changes._sinks.port import Delivery as Delivery
    from outlast.changes._sinks.port import Sink as Sink
    from outlast.changes._sinks.postgres import PostgresSink as PostgresSink
    from outlast.changes._sinks.quarantine import Quarantine as Quarantine
    from outlast.changes._sinks.quarantine import QuarantineFullError as QuarantineFullError
    from outlast.changes._slot.catalog import Publication as Publication
    from outlast.changes._slot.findings import Finding as Finding
    from outlast.changes._slot.monitor import Monitor as Monitor
    from outlast.changes._slot.setup import Findings as Findings
    from outlast.changes._slot.setup import NotReadyError as NotReadyError
    from outlast.changes._slot.setup import drop_publication as drop_publication
    from outlast.changes._slot.setup import drop_slot as drop_slot
    from outlast.changes._slot.setup import examine as examine
    from outlast.changes._slot.setup import list_slots as list_slots
    from outlast.changes._slot.setup import set_up as set_up
    from outlast.changes._slot.watch import Report as Report
    from outlast.changes._slot.watch import SlotState as SlotState
    from outlast.changes._slot.watch import Thresholds as Thresholds
    from outlast.changes._stream import Changes as Changes
    from outlast.changes._tail import tail as tail
    from outlast.postgres.ownership import FencedError as FencedError
    from outlast.postgres.ownership import Standby as Standby
    from outlast.postgres.ownership import StandbyState as StandbyState
    from outlast.postgres.replication import Slot as Slot
    from outlast.postgres.replication import format_lsn as format_lsn
    from outlast.postgres.replication import parse_lsn as parse_lsn

_HOMES = {
    "Assembler": "_decoding.transactions",
    "Change": "_decoding.messages",
    "Changes": "_stream",
    "Column": "_decoding.messages",
    "Copying": "_sinks.port",
    "Decoder": "_decoding.decoder",
    "Delete": "_decoding.messages",
    "Delivery": "_sinks.port",
    "DeliveryPolicy": "_policies",
    "FencedError": "outlast.postgres.ownership",
    "FileSpool": "_decoding.spool",
    "Finding": "_slot.findings",
    "Findings": "_slot.setup",
    "Insert": "_decoding.messages",
    "Interval": "_decoding.values",
    "JsonLinesSink": "_sinks.json_lines",
    "MemorySpool": "_decoding.spool",
    "Message": "_decoding.messages",
    "Monitor": "_slot.monitor",
    "NotReadyError": "_slot.setup",
    "Origin": "_decoding.messages",
    "OwnerPolicy": "_policies",
    "PgOutputError": "_decoding.payload",
    "PostgresSink": "_sinks.postgres",
    "Publication": "_slot.catalog",
    "Quarantine": "_sinks.quarantine",
    "QuarantineFullError": "_sinks.quarantine",
    "RefusedError": "_sinks.poison",
    "Relation": "_decoding.messages",
    "ReplicaIdentity": "_decoding.messages",
    "Report": "_slot.watch",
    "Sink": "_sinks.port",
    "Slot": "outlast.postgres.replication",
    "SlotState": "_slot.watch",
    "SourcePolicy": "_policies",
    "Spool": "_decoding.spool",
    "SpoolFullError": "_decoding.spool",
    "Standby": "outlast.postgres.ownership",
    "StandbyState": "outlast.postgres.ownership",
    "StdoutSink": "_sinks.json_lines",
    "StreamOverError": "_sinks.poison",
    "Thresholds": "_slot.watch",
    "Transaction": "_decoding.transactions",
    "TransactionPart": "_decoding.transactions",
    "Truncate": "_decoding.messages",
    "UNCHANGED": "_decoding.messages",
    "Update": "_decoding.messages",
    "drop_publication": "_slot.setup",
    "drop_slot": "_slot.setup",
    "examine": "_slot.setup",
    "format_lsn": "outlast.postgres.replication",
    "list_slots": "_slot.setup",
    "parse_lsn": "outlast.postgres.replication",
    "set_up": "_slot.setup",
    "tail": "_tail",
}

__all__ = [
    "UNCHANGED",
    "Assembler",
    "Change",
    "Changes",
    "Column",
    "Copying",
    "Decoder",
    "Delete",
    "Delivery",
    "DeliveryPolicy",
    "FencedError",
    "FileSpool",
    "Finding",
    "Findings",
    "Insert",
    "Interval",
    "JsonLinesSink",
    "MemorySpool",
    "Message",
    "Monitor",
    "NotReadyError",
    "Origin",
    "OwnerPolicy",
    "PgOutputError",
    "PostgresSink",
    "Publication",
    "Quarantine",
    "QuarantineFullError",
    "RefusedError",
    "Relation",
    "ReplicaIdentity",
    "Report",
    "Sink",
    "Slot",
    "SlotState",
    "SourcePolicy",
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
    "drop_publication",
    "drop_slot",
    "examine",
    "format_lsn",
    "list_slots",
    "parse_lsn",
    "set_up",
    "tail",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
