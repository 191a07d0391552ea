"""The second door: names that an adapter or a system may use beside those of `outlast`.

A service needs none of them. Everything else of the package is private, and may change from one release to the next.
"""

from __future__ import annotations

from outlast._core.admission.retry_after import parse as parse_retry_after
from outlast._core.backoff import FLOOR_SPREAD, BackoffState, Jitter
from outlast._core.fault_record import fault_of_record, fault_record, refusal_in
from outlast._core.faults import attach, attached
from outlast._core.once import Once
from outlast._core.plain_json import JsonTooLargeError, NotJsonError, from_json, json_or_text, plain_text, to_json
from outlast._core.quantities import size_text
from outlast._core.ramp import due as ramp_due
from outlast._core.ramp import length_s as ramp_length_s
from outlast._core.reaction import Reaction
from outlast._core.redact import clean, cut
from outlast._core.shown import Act, Figure, FigureKind, Lag, Shown, SystemHealth, Unit
from outlast._files.append import AppendFile, Sync, TornFileError
from outlast._files.aside import Aside
from outlast._files.calls import LOCAL_FILES, FileSystem, pieces_behind
from outlast._files.descriptors import Descriptors
from outlast._files.journal import Journal, JournalFullError, NewerFormatError
from outlast._files.room import NO_ROOM, Levels, Room, room
from outlast._runtime.adapter.line import Line
from outlast._runtime.adapter.pacer import Pacer
from outlast._runtime.adapter.slots import Slots
from outlast._runtime.adapter.wire import Wire, Wires
from outlast._runtime.durable.contained import EscapedError, contained, escaped
from outlast._runtime.durable.needs import Needs
from outlast._runtime.durable.quiet import Quiet
from outlast._runtime.durable.recorder import Recorder
from outlast._runtime.durable.sieve import Sieve, fault_of_call
from outlast._runtime.process.own_thread import OwnThread
from outlast._serve.address import parse_address
from outlast._serve.listener import Listener

__all__ = [
    "FLOOR_SPREAD",
    "LOCAL_FILES",
    "NO_ROOM",
    "Act",
    "AppendFile",
    "Aside",
    "BackoffState",
    "Descriptors",
    "EscapedError",
    "Figure",
    "FigureKind",
    "FileSystem",
    "Jitter",
    "Journal",
    "JournalFullError",
    "JsonTooLargeError",
    "Lag",
    "Levels",
    "Line",
    "Listener",
    "Needs",
    "NewerFormatError",
    "NotJsonError",
    "Once",
    "OwnThread",
    "Pacer",
    "Quiet",
    "Reaction",
    "Recorder",
    "Room",
    "Shown",
    "Sieve",
    "Slots",
    "Sync",
    "SystemHealth",
    "TornFileError",
    "Unit",
    "Wire",
    "Wires",
    "attach",
    "attached",
    "clean",
    "contained",
    "cut",
    "escaped",
    "fault_of_call",
    "fault_of_record",
    "fault_record",
    "from_json",
    "json_or_text",
    "parse_address",
    "parse_retry_after",
    "pieces_behind",
    "plain_text",
    "ramp_due",
    "ramp_length_s",
    "refusal_in",
    "room",
    "size_text",
    "to_json",
]
