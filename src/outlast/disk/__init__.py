"""A disk as a dependency: watched before it is full."""

from __future__ import annotations

from outlast.disk._disk import Disk, DiskRoom
from outlast.disk._faults import SpaceLowError, disk_rule
from outlast.disk._watch import Thresholds

__all__ = ["Disk", "DiskRoom", "SpaceLowError", "Thresholds", "disk_rule"]
