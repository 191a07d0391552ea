"""Consumers of a stream: durable cursors with leases, acknowledgement, and a bounded number of deliveries."""

from __future__ import annotations

from outlast.streams._consumers._consumer import Consumer
from outlast.streams._consumers._consumers import ConsumerCounts, Consumers
from outlast.streams._consumers._file import OpenedFiles, load

__all__ = ["Consumer", "ConsumerCounts", "Consumers", "OpenedFiles", "load"]
