"""The options of folding for Python loggers, declared, described and checked once for all of them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypedDict

from outlast._core.fold import FoldPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

FOLD: Final = FoldPolicy()


class IncidentSource(Protocol):
    """An object that knows which incident is open: the `incident` of a dependency, for one."""

    def summary(self) -> str | None:
        """Return half a sentence about what is open; None when all is well."""


class Options(TypedDict, total=False):
    """The keyword arguments of every `fold`. Their defaults are those of `FoldOptions`."""

    exempt: Collection[int | str]
    """Records that are never folded: levels (as numbers), loggers with their descendants, and message templates or events."""
    level: int
    """Records below it are not looked at, since progress is no storm: WARNING by default. CRITICAL is never folded."""
    variants_max: int
    """The number of different fillings of one template that are open at a time (32); see `sameness`."""
    incidents: Iterable[IncidentSource]
    """Sources of the open incident, such as `dependency.incident`; summaries carry it as `outlast.incident`."""
    timer: bool
    """Without it the caller calls `due`, by `clock`."""
    clock: Callable[[], float]
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class FoldOptions:
    """All `Options` of one folding, with its policy. Raises ValueError and TypeError for what makes no sense."""

    policy: FoldPolicy = FOLD
    exempt: Collection[int | str] = ()
    level: int = logging.WARNING
    variants_max: int = 32
    incidents: Iterable[IncidentSource] = ()
    timer: bool = True
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        """Refuse options under which nothing could be folded."""
        if isinstance(self.exempt, str):
            raise TypeError(f"exempt is a collection of levels and names, such as {{{self.exempt!r}}}, not one text")
        if self.variants_max < 1:
            raise ValueError(f"variants_max is at least 1, not {self.variants_max}")
