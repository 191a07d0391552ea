"""Drills: a scripted fault against a running service, measured from outside.

A drill starts real servers and real service processes (its *arms*), breaks something, mends it, and counts what
the arms did meanwhile: lines written, connections tried, processor time used, work lost or done twice. Nothing an
arm says about itself is believed. Importing this package imports none of the drill's third-party packages.
"""

from __future__ import annotations

from outlast._drill.lab.result import ArmResult, DrillResult, Promise, Timeline

__all__ = ["ArmResult", "DrillResult", "Promise", "Timeline"]
