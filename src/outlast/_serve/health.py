"""Whether a process lives, is ready, and how it is: the pages of an endpoint."""

from __future__ import annotations

import dataclasses
import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from outlast._core.redact import clean
from outlast._serve.server import TEXT, Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._serve.endpoint import Page


@dataclasses.dataclass(frozen=True, slots=True)
class DependencyStatus:
    """One dependency: its state, the first cause of the present outage, and for how many seconds it has lasted."""

    name: str
    state: str
    cause: str = ""
    since_s: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class HealthStatus:
    """The state of a service now. It is shown to whoever asks: it holds no secrets, and no contents of requests.

    `phase` is "starting", "running", or the phase of the stop: "refuse", "drain", "flush", "close", "report".
    `reason` says why it is not ready or not live. `since_s` is how many seconds ago `phase` began; `holders`, how
    many still hold the gate of the phase.
    """

    name: str
    ready: bool
    live: bool
    phase: str
    reason: str = ""
    since_s: float = 0.0
    dependencies: tuple[DependencyStatus, ...] = ()
    holders: int = 0


def health_pages(status: Callable[[], HealthStatus]) -> dict[str, Page]:
    """Return `/livez`, `/readyz` and `/statusz` of what `status` returns. It is called in a thread for each request."""

    def live() -> Answer:
        now = status()
        return verdict(now.live, "ok" if now.live else now.reason or "not live")

    def ready() -> Answer:
        now = status()
        return verdict(now.ready, "ok" if now.ready else now.reason or now.phase)

    def whole() -> Answer:
        text = json.dumps(dataclasses.asdict(status()), allow_nan=False)
        return Answer(HTTPStatus.OK, "application/json", text + "\n")

    return {"/livez": live, "/readyz": ready, "/statusz": whole}


def verdict(well: bool, reason: str) -> Answer:  # noqa: FBT001
    """Return 200 or 503 with the reason on one line."""
    if well:
        return Answer(HTTPStatus.OK, TEXT, clean(reason) + "\n")
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, clean(reason) + "\n", retry_after_s=1)
