"""Change streams of PostgreSQL: logical replication that outlasts the outages of its database."""

from __future__ import annotations

from outlast.changes.messages import (
    UNCHANGED,
    BinaryValue,
    Delete,
    Insert,
    Message,
    Relation,
    Truncate,
    Update,
    format_lsn,
    parse_lsn,
)
from outlast.changes.pgoutput import Decoder, PgOutputError
from outlast.changes.spool import FileSpool, MemorySpool, Spool, SpoolFullError
from outlast.changes.transactions import Assembler, Transaction, TransactionPart
from outlast.changes.values import Interval

__all__ = [
    "UNCHANGED",
    "Assembler",
    "BinaryValue",
    "Decoder",
    "Delete",
    "FileSpool",
    "Insert",
    "Interval",
    "MemorySpool",
    "Message",
    "PgOutputError",
    "Relation",
    "Spool",
    "SpoolFullError",
    "Transaction",
    "TransactionPart",
    "Truncate",
    "Update",
    "format_lsn",
    "parse_lsn",
]
