"""Figures of the process and of its systems, collected and written in the text format of Prometheus, version 0.0.4.

The format: https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from outlast._core.redact import clean, cut
from outlast._core.shown import Figure, FigureKind, Unit
from outlast._serve.server import TEXT, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from outlast._core.shown import Act, Lag, Shown, SystemHealth

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SYSTEMS_MAX: Final = 100
FIGURES_MAX: Final = 100
"""Of one system."""
SAMPLES_MAX: Final = 100
"""Of one figure of one system: sets of label values. With the lines above some 100 bytes each, 100 MB is the very most, and
some 10 kB what a service has."""
LABEL_CHARS_MAX: Final = 300
STALE_S: Final = 600.0
"""A figure that was read longer ago is left out: it says nothing about now. Its age is still shown."""
WAIT_S: Final = 1.0
"""A request waits as long as this for another one that is collecting."""
logger = logging.getLogger("outlast")


@dataclass(frozen=True, slots=True)
class Group:
    """Figures whose names begin alike, "outlast_jobs" for one, and the labels that all of them have."""

    prefix: str
    figures: Iterable[Figure]
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class _Family:
    """All samples of one name, which stand together below one line of help and one of type."""

    kind: FigureKind
    text: str
    samples: dict[str, float] = field(default_factory=dict[str, float])


def exposition(groups: Iterable[Group]) -> str:
    """Write figures: for each name its help, its type and its samples; a line feed at the end.

    A name comes once, whatever number of groups has it, and so does a set of labels: the first one counts. What is above the
    bounds of this file is left out, and counted in `outlast_left_out_samples`.
    """
    families: dict[str, _Family] = {}
    left_out = sum(_gather(group, figure, families) for group in groups for figure in group.figures)
    left = Figure.gauge("left_out_samples", "Samples left out of this answer: too many, or twice the same labels.", left_out)
    _gather(Group("outlast", ()), left, families)
    lines: list[str] = []
    for name, family in families.items():
        if not family.samples:
            continue
        lines += [f"# HELP {name} {_escaped_help(family.text)}", f"# TYPE {name} {family.kind.value}"]
        lines += [f"{name}{labels} {number(value)}" for labels, value in family.samples.items()]
    return "\n".join(lines) + "\n"


def _gather(group: Group, figure: Figure, families: dict[str, _Family]) -> int:
    """Put the samples of a figure into the family of its name; return how many were left out."""
    parts = [group.prefix, figure.name, figure.unit.value, "total" if figure.kind is FigureKind.COUNTER else ""]
    family = families.setdefault("_".join(filter(None, parts)), _Family(figure.kind, figure.text))
    if family.kind is not figure.kind:
        return len(figure.samples)
    before = len(family.samples)
    for values, value in figure.samples[:SAMPLES_MAX]:
        pairs = [*group.labels.items(), *zip(figure.labels, values, strict=True)]
        written = ",".join(f'{label}="{_escaped(text)}"' for label, text in pairs)
        family.samples.setdefault(f"{{{written}}}" if written else "", value)
    return len(figure.samples) - (len(family.samples) - before)


def number(value: float) -> str:
    """Write a value: whole numbers without a point, others so that they read as the same number again."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e17 else repr(float(value))


def _escaped(text: str) -> str:
    return clean(text, LABEL_CHARS_MAX).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escaped_help(text: str) -> str:
    return cut(text).replace("\\", "\\\\").replace("\n", "\\n")


class Collector:
    """The page `/metrics`: figures of the process's own and those of every system that shows itself.

    One thread collects at a time, so that a system is asked by one thread at a time; another waits for a second and is
    answered 503. What a system raises costs the others nothing: it is logged once until the system can be shown again, and
    `outlast_system_shown` is 0.
    """

    def __init__(
        self,
        own: Callable[[], Iterable[Group]],
        systems: Callable[[], Sequence[Shown]] = tuple,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._systems = systems
        self._clock = clock
        # Protects `_broken`, and is held while systems are asked.
        self._lock = threading.Lock()
        self._broken: set[int] = set()

    def __call__(self) -> Answer:
        """Collect and write; from any thread."""
        if not self._lock.acquire(timeout=WAIT_S):
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, "unknown: figures are being collected\n", retry_after_s=1)
        try:
            text = exposition(self._groups())
        finally:
            self._lock.release()
        return Answer(HTTPStatus.OK, CONTENT_TYPE, text)

    def _groups(self) -> Iterator[Group]:
        yield from self._own()
        for shown in list(self._systems())[:SYSTEMS_MAX]:
            # By its class until it has said its name, which may be what it cannot do.
            key, labels = id(shown), {"system": type(shown).__name__, "name": ""}
            try:
                labels = _labels(shown)
                groups = self._of(shown, labels)
            except Exception:
                if key not in self._broken:
                    self._broken.add(key)
                    logger.exception("metrics: %s %s cannot be shown; it is left out until it can", *labels.values())
                groups = []
            else:
                self._broken.discard(key)
            yield from groups
            was = Figure.gauge("shown", "Whether the system could say how it is.", key not in self._broken)
            yield Group("outlast_system", [was], labels)

    def _of(self, shown: Shown, labels: dict[str, str]) -> list[Group]:
        """Return what one system shows, and how old what it has read elsewhere is."""
        now = self._clock()
        about = [*_health(shown.health(), now), *_lag(shown.lag()), *_acts(shown.acts())]
        mine = list(shown.figures())[:FIGURES_MAX]
        ages = {figure.name: now - figure.read_at for figure in (*about, *mine) if figure.read_at is not None}
        about, mine = ([each for each in figures if ages.get(each.name, 0.0) <= STALE_S] for figures in (about, mine))
        if ages:
            text = f"How long ago a figure was read; after {STALE_S:g} s it is left out."
            about.append(Figure.gauge("figure_age", text, ages, labels=("figure",), unit=Unit.SECONDS))
        return [Group("outlast_system", about, labels), Group(f"outlast_{labels['system']}", mine, {"name": labels["name"]})]


def _labels(shown: Shown) -> dict[str, str]:
    return {"system": shown.system, "name": shown.name}


def _health(health: SystemHealth, now: float) -> Iterator[Figure]:
    well = float("nan") if health.well is None else float(health.well)
    unwell_s = now - health.since if health.well is False and health.since is not None else 0.0
    yield Figure.gauge("well", "Whether the system is well; NaN where it is not known.", well)
    yield Figure.gauge("unwell", "How long the system has not been well.", unwell_s, unit=Unit.SECONDS)


def _lag(lag: Lag | None) -> Iterator[Figure]:
    if lag is None:
        return
    text = "How far the system is behind what it follows."
    if lag.size_bytes is not None:
        yield Figure.gauge("lag", text, lag.size_bytes, unit=Unit.BYTES, read_at=lag.read_at)
    if lag.seconds is not None:
        yield Figure.gauge("lag", text, lag.seconds, unit=Unit.SECONDS, read_at=lag.read_at)


def _acts(acts: Sequence[Act]) -> Iterator[Figure]:
    if not acts:
        return
    concerns = {act.name: float("nan") if act.concerns is None else act.concerns for act in acts}
    read_at = min((act.read_at for act in acts if act.read_at is not None), default=None)
    text = "How many things an act of an operator would touch; NaN where it is not known."
    yield Figure.gauge("act_concerns", text, concerns, labels=("act",), read_at=read_at)
