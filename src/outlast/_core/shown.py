"""The port by which a system shows itself to those who run it: figures, health, lag, and acts. Values and their rules only.

    class Outbox:
        system = "outbox"
        name = "orders"

        def figures(self) -> list[Figure]:
            return [Figure.counter("sent_messages", "Messages the peer took.", self.sent)]

        def health(self) -> SystemHealth:
            return self._health

        def lag(self) -> Lag | None:
            return Lag(seconds=self.oldest_s)

        def acts(self) -> list[Act]:
            return []

    service.show(outbox)

**Threads.** `figures`, `health`, `lag` and `acts` are called from threads of the endpoint's, one at a time, also while the event
loop stands still. So they read what lies in memory: attributes that are replaced whole, collections that are copied in one
step (`dict(counts)`). They never wait, take no lock that is held across a wait, and ask nobody. What has to be asked for is
kept up to date by a loop of the system's own, and shown with the time at which it was read (`read_at`). `Act.run` alone is
awaited on the event loop of the service.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from outlast._core.faults import Fault
    from outlast._core.health import Health

    By = Mapping[str, float] | Mapping[tuple[str, str], float] | Mapping[tuple[str, ...], float]
    Values = float | By

NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
"""Names of figures and labels: lower case words, for which Prometheus has no other use. Its own `__name__` is none."""
RESERVED: Final = re.compile(r".*_(?:total|count|sum|bucket|info|seconds|bytes|ratio)")
"""Endings that mean something to Prometheus: those of units and counters are added where they belong."""


class FigureKind(enum.Enum):
    """The way a figure moves."""

    COUNTER = "counter"
    """It only grows, and begins at 0 with the process."""
    GAUGE = "gauge"
    """It goes up and down."""


class Unit(enum.Enum):
    """The unit of a figure; a number of things has the things in its name."""

    NONE = ""
    SECONDS = "seconds"
    BYTES = "bytes"
    RATIO = "ratio"
    """A share: 0 to 1."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is counted or measured. Make it with `counter`, `gauge` or `states`.

    `name` says what is counted, without the system before it and without a unit or "total" behind it: "sent_messages", "lag".
    `samples` has one value for each set of label values, which are as many as `labels`; a figure without labels has one.
    `read_at`, on the clock of the event loop (`time.monotonic`), is when a value was asked for elsewhere; None: it is as it
    is now. Keep the values of a label few and known: 100 sets are shown of a figure, in their order, the others counted.
    Raises ValueError for a name that is none.
    """

    name: str
    kind: FigureKind
    text: str
    """One sentence for whoever reads `/metrics`."""
    samples: Sequence[tuple[tuple[str, ...], float]]
    labels: tuple[str, ...] = ()
    unit: Unit = Unit.NONE
    read_at: float | None = None

    def __post_init__(self) -> None:
        for name in (self.name, *self.labels):
            if not NAME.fullmatch(name):
                msg = f"figure {self.name!r}: {name!r} is no name; write lower case words: sent_messages"
                raise ValueError(msg)
        if RESERVED.fullmatch(self.name):
            msg = f"figure {self.name!r}: leave out the unit and the ending; they follow from `unit` and from `counter`"
            raise ValueError(msg)
        for values, _ in self.samples:
            if len(values) != len(self.labels):
                msg = f"figure {self.name!r}: {len(values)} label values, {values!r}, for the labels {self.labels!r}"
                raise ValueError(msg)

    @classmethod
    def counter(
        cls,
        name: str,
        text: str,
        values: Values,
        *,
        labels: tuple[str, ...] = (),
        unit: Unit = Unit.NONE,
        read_at: float | None = None,
    ) -> Figure:
        """Return a counter. `values` is a number; with a label, a number for each value of it, with several for each tuple."""
        return cls(name, FigureKind.COUNTER, text, _samples(values), labels, unit, read_at)

    @classmethod
    def gauge(
        cls,
        name: str,
        text: str,
        values: Values,
        *,
        labels: tuple[str, ...] = (),
        unit: Unit = Unit.NONE,
        read_at: float | None = None,
    ) -> Figure:
        """Return a gauge. `values` is a number; with a label, a number for each value of it, with several for each tuple."""
        return cls(name, FigureKind.GAUGE, text, _samples(values), labels, unit, read_at)

    @classmethod
    def states(cls, name: str, text: str, present: enum.Enum, *, read_at: float | None = None) -> Figure:
        """Return a gauge with a label `state`: 1 for the present member of an enumeration of text, 0 for the others."""
        samples = [((str(state.value).lower(),), float(state is present)) for state in type(present)]
        return cls(name, FigureKind.GAUGE, text, samples, ("state",), Unit.NONE, read_at)


def _samples(values: Values) -> Sequence[tuple[tuple[str, ...], float]]:
    if isinstance(values, int | float):
        return [((), values)]
    return [((key,) if isinstance(key, str) else key, value) for key, value in values.items()]


class Needed(Protocol):
    """The part of a dependency that matters here; each may be read from any thread."""

    @property
    def name(self) -> str: ...
    @property
    def passable(self) -> bool: ...
    @property
    def fault(self) -> Fault | None: ...
    @property
    def health(self) -> Health: ...


@dataclass(frozen=True, slots=True)
class SystemHealth:
    """The state of a system.

    `well` is None where it is not known: a system that cannot tell never says that all is well. `state` is one of the
    system's own words: "owner", "standing by". `cause` is the first cause of what is wrong, and `since` when that, or the
    present state, began, on the clock of the event loop.
    """

    well: bool | None
    state: str
    cause: Fault | None = None
    since: float | None = None

    @classmethod
    def waiting_for(cls, *needs: Needed) -> SystemHealth | None:
        """Return the health of a system that waits for the first of these dependencies that is down; None if none is."""
        down = next((need for need in needs if not need.passable), None)
        return None if down is None else cls(False, f"waiting for {down.name}", down.fault, down.health.opened_at)


@dataclass(frozen=True, slots=True)
class Lag:
    """The distance of a system behind what it follows: in bytes, in seconds, or both. `read_at` is as that of a figure."""

    size_bytes: float | None = None
    seconds: float | None = None
    read_at: float | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """Something an operator may have a system do.

    `name` is what a button says: "retry dead jobs"; `text`, one sentence about what it does. `concerns` is how many things
    it would touch now (17 dead jobs), None where that is not known, as of `read_at`. `destructive`: what it takes away does
    not come back. `run` does it, bounded in time and amount, and returns how many things it did; it is awaited on the event
    loop of the service, at most once at a time, and raises as any call of the system does.
    """

    name: str
    text: str
    run: Callable[[], Awaitable[int]] = field(repr=False)
    concerns: int | None = None
    destructive: bool = False
    read_at: float | None = None


class Shown(Protocol):
    """A system as it shows itself. The head of this file says which thread calls what."""

    @property
    def system(self) -> str:
        """The kind of system, which the names of its figures begin with: "jobs", "changes". A name as those of figures."""
        ...

    @property
    def name(self) -> str:
        """The name of this one among several of its kind: the label `name` of its figures."""
        ...

    def figures(self) -> Sequence[Figure]:
        """Return its figures; their names and kinds are the same each time."""
        ...

    def health(self) -> SystemHealth:
        """Return how it is."""
        ...

    def lag(self) -> Lag | None:
        """Return how far it is behind; None for a system that follows nothing, or where it is not known."""
        ...

    def acts(self) -> Sequence[Act]:
        """Return what an operator may have it do."""
        ...
