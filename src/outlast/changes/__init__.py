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

__all__ = [
    "UNCHANGED",
    "BinaryValue",
    "Decoder",
    "Delete",
    "Insert",
    "Message",
    "PgOutputError",
    "Relation",
    "Truncate",
    "Update",
    "format_lsn",
    "parse_lsn",
]
