"""Admission: whether work may come in."""

from __future__ import annotations

from outlast._core.admission.values import Criticality, Reason

__all__ = ["Criticality", "Reason"]
