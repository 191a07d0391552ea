"""Group commit: appends queue by stream, and one thread a volume writes them."""

from __future__ import annotations

from outlast.streams._commit.committer import Committer
from outlast.streams._commit.lane import Counts, Lane
from outlast.streams._commit.volume_queue import BACKLOG_BYTES, BACKLOG_MAX, FRAME_BYTES

__all__ = ["BACKLOG_BYTES", "BACKLOG_MAX", "FRAME_BYTES", "Committer", "Counts", "Lane"]
