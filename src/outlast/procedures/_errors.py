"""The errors that callers of procedures meet."""

from __future__ import annotations

from outlast import OutlastError


class InvalidProcedureError(OutlastError, ValueError):
    """A procedure, a submission or a setting is out of its limits: what, the value seen, the limit. Nothing was submitted."""


class SignalsFullError(OutlastError):
    """A record has as many signals already as it may, none of them taken yet: this one is not kept."""
