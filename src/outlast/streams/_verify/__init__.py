"""Checking every byte of a volume against its checksums, and mending what can be mended. Nothing whole is removed."""

from __future__ import annotations

from outlast.streams._verify.report import Finding, Report
from outlast.streams._verify.verify import verify

__all__ = ["Finding", "Report", "verify"]
