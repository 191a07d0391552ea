"""Folding of logs: what repeats is counted, what is new is shown at once."""

from __future__ import annotations

from outlast._core.fold import FoldPolicy
from outlast.logs._writer import QueuedHandler

__all__ = ["FoldPolicy", "QueuedHandler"]
