"""Durable streams of records on a local disk, whose behaviour on a full disk is a promise."""

from __future__ import annotations

from outlast.streams._errors import StreamError
from outlast.streams._model import Appended, Producer, Record, Retention, StreamOptions

__all__ = ["Appended", "Producer", "Record", "Retention", "StreamError", "StreamOptions"]
