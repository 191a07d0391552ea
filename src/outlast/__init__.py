"""Outlast keeps a long-running service standing when what it depends on fails.

    import outlast

    service = outlast.Service("shop")

The names below are all there is at the root. They are loaded when first used, so that importing the
package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.lazily import lazily

if TYPE_CHECKING:
    from outlast.core.backoff import Backoff as Backoff
    from outlast.core.backoff import BackoffState as BackoffState
    from outlast.core.backoff import Jitter as Jitter
    from outlast.core.budget import RetryBudget as RetryBudget
    from outlast.core.classify import Classifiers as Classifiers
    from outlast.core.faults import ConfigurationError as ConfigurationError
    from outlast.core.faults import Fault as Fault
    from outlast.core.faults import Kind as Kind
    from outlast.core.faults import OutlastError as OutlastError
    from outlast.core.faults import Scope as Scope
    from outlast.core.faults import Unavailable as Unavailable
    from outlast.core.governor import Ceiling as Ceiling
    from outlast.core.health import HealthPolicy as HealthPolicy
    from outlast.core.health import State as State
    from outlast.core.intensity import Restart as Restart
    from outlast.core.phases import Phase as Phase
    from outlast.runtime.dependency.dependency import Dependency as Dependency
    from outlast.runtime.dependency.incident import Incident as Incident
    from outlast.runtime.dependency.retry import retry as retry
    from outlast.runtime.gate import Gate as Gate
    from outlast.runtime.progress import progress as progress
    from outlast.runtime.run import run as run
    from outlast.runtime.service import Service as Service
    from outlast.runtime.stop import Stop as Stop
    from outlast.runtime.stop import Stopping as Stopping

__version__ = "0.1.0"

_HOMES = {
    "Backoff": "core.backoff",
    "BackoffState": "core.backoff",
    "Ceiling": "core.governor",
    "Classifiers": "core.classify",
    "ConfigurationError": "core.faults",
    "Dependency": "runtime.dependency.dependency",
    "Fault": "core.faults",
    "Gate": "runtime.gate",
    "HealthPolicy": "core.health",
    "Incident": "runtime.dependency.incident",
    "Jitter": "core.backoff",
    "Kind": "core.faults",
    "OutlastError": "core.faults",
    "Phase": "core.phases",
    "Restart": "core.intensity",
    "RetryBudget": "core.budget",
    "Scope": "core.faults",
    "Service": "runtime.service",
    "State": "core.health",
    "Stop": "runtime.stop",
    "Stopping": "runtime.stop",
    "Unavailable": "core.faults",
    "progress": "runtime.progress",
    "retry": "runtime.dependency.retry",
    "run": "runtime.run",
}

__all__ = [
    "Backoff",
    "BackoffState",
    "Ceiling",
    "Classifiers",
    "ConfigurationError",
    "Dependency",
    "Fault",
    "Gate",
    "HealthPolicy",
    "Incident",
    "Jitter",
    "Kind",
    "OutlastError",
    "Phase",
    "Restart",
    "RetryBudget",
    "Scope",
    "Service",
    "State",
    "Stop",
    "Stopping",
    "Unavailable",
    "progress",
    "retry",
    "run",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
