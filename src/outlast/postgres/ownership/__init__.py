"""One owner of a name at a time: an advisory lock, and epochs that fence the owner before."""

from __future__ import annotations

from outlast.postgres.ownership._epochs import FENCED_MAX, Epochs, FencedError, Fences
from outlast.postgres.ownership._standby import Standby, StandbyState, lock_key

__all__ = ["FENCED_MAX", "Epochs", "FencedError", "Fences", "Standby", "StandbyState", "lock_key"]
