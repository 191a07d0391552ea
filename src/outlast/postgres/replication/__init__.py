"""The replication protocol: a session, its commands, and the stream of changes it copies."""

from __future__ import annotations

from outlast.postgres.replication._commands import CreatedSlot, SlotState, System
from outlast.postgres.replication._dial import TEXT_SETTINGS, Keepalive, dial
from outlast.postgres.replication._lsn import format_lsn, parse_lsn
from outlast.postgres.replication._session import PHASE, Replication, SlotWaitsError
from outlast.postgres.replication._stream import StreamEndedError, shut_down

__all__ = [
    "PHASE",
    "TEXT_SETTINGS",
    "CreatedSlot",
    "Keepalive",
    "Replication",
    "SlotState",
    "SlotWaitsError",
    "StreamEndedError",
    "System",
    "dial",
    "format_lsn",
    "parse_lsn",
    "shut_down",
]
