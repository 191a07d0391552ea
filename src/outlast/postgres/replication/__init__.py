"""The replication protocol: a session, its commands, and the stream of changes it copies."""

from __future__ import annotations

from outlast.postgres.replication._commands import CreatedSlot, System
from outlast.postgres.replication._dial import TEXT_SETTINGS, Keepalive, dial
from outlast.postgres.replication._lsn import format_lsn, parse_lsn
from outlast.postgres.replication._session import PHASE, Replication, SlotWaitsError
from outlast.postgres.replication._slots import Slot, read_slot
from outlast.postgres.replication._stream import StreamEndedError, shut_down

__all__ = [
    "PHASE",
    "TEXT_SETTINGS",
    "CreatedSlot",
    "Keepalive",
    "Replication",
    "Slot",
    "SlotWaitsError",
    "StreamEndedError",
    "System",
    "dial",
    "format_lsn",
    "parse_lsn",
    "read_slot",
    "shut_down",
]
