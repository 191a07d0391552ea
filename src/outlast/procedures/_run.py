"""The values that steps, undos and migrations of users are called with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The outcome of a step that is to be undone."""

    known: bool
    """False: the step was begun, and whether it has had its effect is not known: it failed, timed out, was cancelled, or its
    runner died in it. The undo has to find out, by the idempotency key of the step for one."""
    result: Any = None
    """The result, if it is known."""


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A step as it is recorded, for a migration."""

    name: str
    done: bool = True
    """False: begun, and not known to be done. Only the last one may be so."""
    result: Any = None


class Results(Mapping[str, Any]):
    """The results of the steps that are done, by name. Each look-up reads the recorded text: no change to a value is kept."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """`texts` has JSON."""
        self._texts = texts

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - anything that is JSON
        """Return the result of a step. Raises `KeyError` if it is not done."""
        return json.loads(self._texts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return f"Results({', '.join(self._texts)})"


def _nobody(_text: str) -> None:
    """Listen to no progress."""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a step, or at its undo, as its function receives it."""

    id: str
    """Of the record."""
    kind: str
    """The name of the procedure."""
    key: str
    payload: Any
    step: str
    attempt: int
    """1 for the first. Attempts of runners that died are counted."""
    idempotency_key: str
    """The same for each attempt at this step, after a crash too, and for no other: hand it to whatever the step changes. A key
    that is tried again after it had failed is new work, and has new ones. Those of an undo end in `:undo`."""
    token: int
    """Rises with each claim of the record: whatever takes the highest it has seen, and refuses lower ones, is safe from a runner
    that was taken for dead and is not."""
    results: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of the steps before it; a sleep has None, a wait the payload of its signal."""
    on_say: Callable[[str], None] = field(default=_nobody, repr=False)

    def say(self, text: str) -> None:
        """Note how far the step is ("3 of 10"), for people who look at the record."""
        self.on_say(text)
