"""What the arms of every drill in these tests have: those that keep all promises."""

from __future__ import annotations

from typing import Any

SHARED: dict[str, Any] = {
    "summary": "a kind of service",
    "log_bytes": 800,
    "cpu_s": 9.0,
    "rss_peak_mib": 40.0,
    "connects_100ms_max": 8,
    "connects_100ms_max_recovery": 8,
    "lost": 0,
    "work_s": 0.05,
    "exit_code": 0,
    "stop_s": 0.2,
    "log_first": ("one", "two"),
}
