"""Folding of logs: what repeats is counted, what is new is shown at once."""

from __future__ import annotations

from outlast._core.fold import FoldPolicy
from outlast.logs._sink import SinkHandler

__all__ = ["FoldPolicy", "SinkHandler"]
