"""The engine of one stream: blocking, on one disk. What it acknowledges it has stored, and what it refuses it has not."""

from __future__ import annotations

from outlast.streams._log.folders import remove
from outlast.streams._log.log import Log
from outlast.streams._log.meta_file import read_meta
from outlast.streams._log.shared import Shared, Space
from outlast.streams._log.view import Chunk, Segment, View

__all__ = ["Chunk", "Log", "Segment", "Shared", "Space", "View", "read_meta", "remove"]
