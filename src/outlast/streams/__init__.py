"""Durable streams of records on a local disk, whose behaviour on a full disk is a promise.

The names are loaded when they are first used: a client needs no store, and a store no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast.streams._client.blocking import BlockingClient as BlockingClient
    from outlast.streams._client.blocking import BlockingConsumer as BlockingConsumer
    from outlast.streams._client.blocking import BlockingStream as BlockingStream
    from outlast.streams._client.client import Client as Client
    from outlast.streams._client.consumer import ClientConsumer as ClientConsumer
    from outlast.streams._client.errors import OffsetGoneError as OffsetGoneError
    from outlast.streams._client.errors import StaleAnswerError as StaleAnswerError
    from outlast.streams._client.listed import ConsumerInfo as ConsumerInfo
    from outlast.streams._client.listed import RecordPage as RecordPage
    from outlast.streams._client.listed import StreamInfo as StreamInfo
    from outlast.streams._client.listed import VolumeCheck as VolumeCheck
    from outlast.streams._client.listed import VolumeUsage as VolumeUsage
    from outlast.streams._client.stream import ClientStream as ClientStream
    from outlast.streams._client.values import Batch as Batch
    from outlast.streams._client.values import Sent as Sent
    from outlast.streams._client.values import StreamHead as StreamHead
    from outlast.streams._consumers import Consumer as Consumer
    from outlast.streams._errors import AppendTooLargeError as AppendTooLargeError
    from outlast.streams._errors import BeyondTailError as BeyondTailError
    from outlast.streams._errors import DamagedError as DamagedError
    from outlast.streams._errors import ExpiredError as ExpiredError
    from outlast.streams._errors import FencedError as FencedError
    from outlast.streams._errors import LimitError as LimitError
    from outlast.streams._errors import OutcomeUnknownError as OutcomeUnknownError
    from outlast.streams._errors import PositionMismatchError as PositionMismatchError
    from outlast.streams._errors import SequenceError as SequenceError
    from outlast.streams._errors import StreamClosedError as StreamClosedError
    from outlast.streams._errors import StreamError as StreamError
    from outlast.streams._errors import StreamExistsError as StreamExistsError
    from outlast.streams._errors import StreamNotFoundError as StreamNotFoundError
    from outlast.streams._errors import TrimmedError as TrimmedError
    from outlast.streams._model import Appended as Appended
    from outlast.streams._model import Chunk as Chunk
    from outlast.streams._model import Delivered as Delivered
    from outlast.streams._model import Listed as Listed
    from outlast.streams._model import Producer as Producer
    from outlast.streams._model import Record as Record
    from outlast.streams._model import Retention as Retention
    from outlast.streams._model import StreamOptions as StreamOptions
    from outlast.streams._node.node import Node as Node
    from outlast.streams._stored import StoredConsumer as StoredConsumer
    from outlast.streams._stored import StoredStream as StoredStream
    from outlast.streams._stored import StoredStreams as StoredStreams
    from outlast.streams._stream import Stream as Stream
    from outlast.streams._streams import Streams as Streams
    from outlast.streams._verify import Finding as Finding
    from outlast.streams._verify import Report as Report
    from outlast.streams._verify import verify as verify

_HOMES = {
    "AppendTooLargeError": "_errors",
    "Appended": "_model",
    "Batch": "_client.values",
    "BeyondTailError": "_errors",
    "BlockingClient": "_client.blocking",
    "BlockingConsumer": "_client.blocking",
    "BlockingStream": "_client.blocking",
    "Chunk": "_model",
    "Client": "_client.client",
    "ClientConsumer": "_client.consumer",
    "ClientStream": "_client.stream",
    "Consumer": "_consumers",
    "ConsumerInfo": "_client.listed",
    "DamagedError": "_errors",
    "Delivered": "_model",
    "ExpiredError": "_errors",
    "FencedError": "_errors",
    "Finding": "_verify",
    "LimitError": "_errors",
    "Listed": "_model",
    "Node": "_node.node",
    "OffsetGoneError": "_client.errors",
    "OutcomeUnknownError": "_errors",
    "PositionMismatchError": "_errors",
    "Producer": "_model",
    "Record": "_model",
    "RecordPage": "_client.listed",
    "Report": "_verify",
    "Retention": "_model",
    "Sent": "_client.values",
    "SequenceError": "_errors",
    "StaleAnswerError": "_client.errors",
    "StoredConsumer": "_stored",
    "StoredStream": "_stored",
    "StoredStreams": "_stored",
    "Stream": "_stream",
    "StreamClosedError": "_errors",
    "StreamError": "_errors",
    "StreamExistsError": "_errors",
    "StreamHead": "_client.values",
    "StreamInfo": "_client.listed",
    "StreamNotFoundError": "_errors",
    "StreamOptions": "_model",
    "Streams": "_streams",
    "TrimmedError": "_errors",
    "VolumeCheck": "_client.listed",
    "VolumeUsage": "_client.listed",
    "verify": "_verify",
}

__all__ = [
    "AppendTooLargeError",
    "Appended",
    "Batch",
    "BeyondTailError",
    "BlockingClient",
    "BlockingConsumer",
    "BlockingStream",
    "Chunk",
    "Client",
    "ClientConsumer",
    "ClientStream",
    "Consumer",
    "ConsumerInfo",
    "DamagedError",
    "Delivered",
    "ExpiredError",
    "FencedError",
    "Finding",
    "LimitError",
    "Listed",
    "Node",
    "OffsetGoneError",
    "OutcomeUnknownError",
    "PositionMismatchError",
    "Producer",
    "Record",
    "RecordPage",
    "Report",
    "Retention",
    "Sent",
    "SequenceError",
    "StaleAnswerError",
    "StoredConsumer",
    "StoredStream",
    "StoredStreams",
    "Stream",
    "StreamClosedError",
    "StreamError",
    "StreamExistsError",
    "StreamHead",
    "StreamInfo",
    "StreamNotFoundError",
    "StreamOptions",
    "Streams",
    "TrimmedError",
    "VolumeCheck",
    "VolumeUsage",
    "verify",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
