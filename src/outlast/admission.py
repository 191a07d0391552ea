"""Admission: whether work may come in, so that overload and doomed work cost next to nothing.

    from outlast.admission import Rate

    admission = outlast.Admission("orders", rate=Rate(1000), key_rate=Rate(50, burst=100))

The names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast._core.admission.bucket import Rate
    from outlast._core.admission.concurrency import Concurrency
    from outlast._core.admission.memory import Memory
    from outlast._core.admission.queue import Queue
    from outlast._core.admission.throttle import Throttle
    from outlast._core.admission.values import Criticality, Reason, Refusal
    from outlast._runtime.admission.admission import Admission
    from outlast._runtime.admission.refused import Refused, TooLargeError
    from outlast._runtime.admission.throttler import Throttler
    from outlast._runtime.admission.ticket import Ticket, Waiting

_HOMES = {
    "Admission": "outlast._runtime.admission.admission",
    "Concurrency": "outlast._core.admission.concurrency",
    "Criticality": "outlast._core.admission.values",
    "Memory": "outlast._core.admission.memory",
    "Queue": "outlast._core.admission.queue",
    "Rate": "outlast._core.admission.bucket",
    "Reason": "outlast._core.admission.values",
    "Refusal": "outlast._core.admission.values",
    "Refused": "outlast._runtime.admission.refused",
    "Throttle": "outlast._core.admission.throttle",
    "Throttler": "outlast._runtime.admission.throttler",
    "Ticket": "outlast._runtime.admission.ticket",
    "TooLargeError": "outlast._runtime.admission.refused",
    "Waiting": "outlast._runtime.admission.ticket",
}

__all__ = [
    "Admission",
    "Concurrency",
    "Criticality",
    "Memory",
    "Queue",
    "Rate",
    "Reason",
    "Refusal",
    "Refused",
    "Throttle",
    "Throttler",
    "Ticket",
    "TooLargeError",
    "Waiting",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
