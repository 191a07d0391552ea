"""Durable streams of records on a local disk, whose behaviour on a full disk is a promise."""

from __future__ import annotations

from outlast.streams._consumers import Consumer, Delivered
from outlast.streams._errors import (
    AppendTooLargeError,
    BeyondTailError,
    DamagedError,
    ExpiredError,
    FencedError,
    LimitError,
    OutcomeUnknownError,
    PositionMismatchError,
    SequenceError,
    StreamClosedError,
    StreamError,
    StreamExistsError,
    StreamNotFoundError,
    TrimmedError,
)
from outlast.streams._model import Appended, Chunk, Producer, Record, Retention, StreamOptions
from outlast.streams._stored import StoredConsumer, StoredStream, StoredStreams
from outlast.streams._stream import Stream
from outlast.streams._streams import Streams
from outlast.streams._verify import Finding, Report, verify

__all__ = [
    "AppendTooLargeError",
    "Appended",
    "BeyondTailError",
    "Chunk",
    "Consumer",
    "DamagedError",
    "Delivered",
    "ExpiredError",
    "FencedError",
    "Finding",
    "LimitError",
    "OutcomeUnknownError",
    "PositionMismatchError",
    "Producer",
    "Record",
    "Report",
    "Retention",
    "SequenceError",
    "StoredConsumer",
    "StoredStream",
    "StoredStreams",
    "Stream",
    "StreamClosedError",
    "StreamError",
    "StreamExistsError",
    "StreamNotFoundError",
    "StreamOptions",
    "Streams",
    "TrimmedError",
    "verify",
]
