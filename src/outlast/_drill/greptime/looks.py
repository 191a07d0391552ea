"""Looks at the store of one arm, four times a second, while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import psycopg

from outlast._drill.lab import measure
from outlast._drill.lab.errors import DrillError
from outlast._drill.lab.looker import Looker

if TYPE_CHECKING:
    from outlast._drill.greptime.stores import Look

EVERY_S: Final = 0.25


class Looked(Protocol):
    """The part of a store that is looked at."""

    def look(self) -> Look:
        """Ask it how much it holds. Called on one thread at a time."""
        ...


class StoreLooks(Looker):
    """A thread that looks; a context manager. Leaving it raises what a look has failed with."""

    def __init__(self, store: Looked) -> None:
        super().__init__("drill-looks")
        self.looks: list[Look] = []
        self._store = store

    def look(self) -> None:
        """Look until the end. A store that nobody can ask must not pass for an empty one: that is raised."""
        try:
            while self.goes_on(EVERY_S):
                self.looks.append(self._store.look())
        except (OSError, psycopg.Error) as error:
            msg = f"the store could not be asked how much it holds: {type(error).__name__}: {error}"
            raise DrillError(msg) from error


def grown_bytes(looks: list[Look], from_s: float, until_s: float) -> float:
    """Return how much the store grew in that time."""
    sizes = [(look.at_s, float(look.size_bytes)) for look in looks]
    return measure.value_at(sizes, until_s) - measure.value_at(sizes, from_s)


def grown_beyond(looks: list[Look], healthy_s: float, began_s: float, until_s: float) -> int:
    """Return how much it grew from `began_s` on beyond what it would have grown as it did from `healthy_s` to `began_s`."""
    before = grown_bytes(looks, healthy_s, began_s)
    expected = before * (until_s - began_s) / (began_s - healthy_s) if began_s > healthy_s else 0.0
    return max(0, round(grown_bytes(looks, began_s, until_s) - expected))


def most_records(looks: list[Look], from_s: float, until_s: float) -> int | None:
    """Return the most records of the bad table that it held at a time; None if nobody looked."""
    return max((look.records for look in looks if from_s <= look.at_s < until_s), default=None)
