"""Streams as they lie in a folder, to look at beside the process that serves them."""

from __future__ import annotations

from outlast.streams._stored.stored import StoredConsumer, StoredStream, StoredStreams

__all__ = ["StoredConsumer", "StoredStream", "StoredStreams"]
