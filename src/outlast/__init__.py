"""Outlast keeps a long-running service standing when what it depends on fails.

    import outlast

    service = outlast.Service("shop")

The names below are all there is at the root. They are loaded when first used, so that importing the
package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast._core.backoff import Backoff as Backoff
    from outlast._core.budget import RetryBudget as RetryBudget
    from outlast._core.classify import Classifiers as Classifiers
    from outlast._core.faults import ConfigurationError as ConfigurationError
    from outlast._core.faults import Fault as Fault
    from outlast._core.faults import Kind as Kind
    from outlast._core.faults import OutlastError as OutlastError
    from outlast._core.faults import Scope as Scope
    from outlast._core.faults import Unavailable as Unavailable
    from outlast._core.governor import Ceiling as Ceiling
    from outlast._core.health import HealthPolicy as HealthPolicy
    from outlast._core.health import State as State
    from outlast._core.intensity import Restart as Restart
    from outlast._core.phases import Phase as Phase
    from outlast._runtime.admission.admission import Admission as Admission
    from outlast._runtime.dependency.dependency import Dependency as Dependency
    from outlast._runtime.dependency.incident import Incident as Incident
    from outlast._runtime.dependency.retry import retry as retry
    from outlast._runtime.process.run import run as run
    from outlast._runtime.service.gate import Gate as Gate
    from outlast._runtime.service.link import Link as Link
    from outlast._runtime.service.progress import progress as progress
    from outlast._runtime.service.service import Service as Service
    from outlast._runtime.service.stop import Stop as Stop
    from outlast._runtime.service.stop import Stopping as Stopping

__version__ = "0.1.0"

_HOMES = {
    "Admission": "_runtime.admission.admission",
    "Backoff": "_core.backoff",
    "Ceiling": "_core.governor",
    "Classifiers": "_core.classify",
    "ConfigurationError": "_core.faults",
    "Dependency": "_runtime.dependency.dependency",
    "Fault": "_core.faults",
    "Gate": "_runtime.service.gate",
    "HealthPolicy": "_core.health",
    "Incident": "_runtime.dependency.incident",
    "Kind": "_core.faults",
    "Link": "_runtime.service.link",
    "OutlastError": "_core.faults",
    "Phase": "_core.phases",
    "Restart": "_core.intensity",
    "RetryBudget": "_core.budget",
    "Scope": "_core.faults",
    "Service": "_runtime.service.service",
    "State": "_core.health",
    "Stop": "_runtime.service.stop",
    "Stopping": "_runtime.service.stop",
    "Unavailable": "_core.faults",
    "progress": "_runtime.service.progress",
    "retry": "_runtime.dependency.retry",
    "run": "_runtime.process.run",
}

__all__ = [
    "Admission",
    "Backoff",
    "Ceiling",
    "Classifiers",
    "ConfigurationError",
    "Dependency",
    "Fault",
    "Gate",
    "HealthPolicy",
    "Incident",
    "Kind",
    "Link",
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
