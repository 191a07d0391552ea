"""The drill's own failures, as opposed to those it stages."""

from __future__ import annotations

from outlast._core.faults import OutlastError


class DrillError(OutlastError):
    """The drill could not be carried out; the message says what to change."""


class DrillUsageError(DrillError):
    """The options cannot be run at all; the message names the one to change."""


class DrillCancelled(DrillError):  # noqa: N818  nothing failed
    """The person who started the drill ended it."""


class DrillSkipped(DrillError):  # noqa: N818  nothing failed
    """The machine does not allow the drill; the message says what is missing."""
