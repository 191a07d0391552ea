"""Shared by the cases of the front: keys, faults, and a front to ask."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from outlast import Fault, Kind
from outlast.procedures._decisions.front import Front, Go, KeyRefusal, Share
from outlast.procedures._model import KeyOf, Submission

if TYPE_CHECKING:
    from outlast.procedures._decisions.causes import CauseNews, Verdict

DOWN = Fault(Kind.TRANSIENT, "ECONNREFUSED", "connection refused", source="metasrv")
BAD = Fault(Kind.REJECTED, "42P07", "the table is there already", source="metasrv")
BUG = Fault(Kind.BUG, "ValueError@shop:12", "invalid literal")
STEP = "allocate"


def key(number: int, kind: str = "create") -> KeyOf:
    return KeyOf(kind, f"table-{number}")


def id_of(of: KeyOf) -> str:
    return f"{of.kind}-{of.key}"


class Fronts:
    """A front with a clock that the case moves, and the acts that a runner would do."""

    def __init__(self, **bounds: int) -> None:
        self.front = Front(random.Random(7), **bounds)
        self.now = 100.0

    def submit(self, of: KeyOf, deadline_s: float | None = None) -> object:
        return self.front.submit(self.now, of, deadline_s)

    def make(self, of: KeyOf, answer: Submission = Submission.CREATED, *, mine: bool = False) -> Go:
        """Submit a key that goes to the store, which answers so."""
        go = self.submit(of)
        assert isinstance(go, Go), go
        self.front.created(self.now, of, id_of(of), answer, mine=mine)
        return go

    def dead(self, of: KeyOf, fault: Fault = BAD, failures: int = 1, until_s: float | None = None) -> None:
        wait = self.front.until_s(fault, failures) if until_s is None else until_s
        self.front.failing(self.now, of, id_of(of), fault, fault, failures=failures, since_s=0.0, until_s=wait)

    def fail(self, of: KeyOf, fault: Fault = DOWN, step: str = STEP) -> Verdict:
        """An attempt fails, and the record waits."""
        verdict = self.front.attempt_failed(self.now, of, fault, step)
        self.front.left(self.now, of)
        return verdict

    def opened(self, count: int = 21, fault: Fault = DOWN) -> None:
        """Open a cause: so many keys fail by the fault."""
        for number in range(count):
            self.fail(key(number), fault)

    def share(self, kind: str = "create") -> Share | None:
        return next((share for share in self.front.shares(self.now, [kind]) if kind in share.kinds), None)

    def claim(self, share: Share, *took: KeyOf, asked: int = 100) -> None:
        self.front.claimed(self.now, share, [(id_of(of), of) for of in took], asked)

    def news(self) -> list[CauseNews]:
        return [event.what for event in self.front.events()]


def refused(answer: object) -> KeyRefusal:
    assert isinstance(answer, KeyRefusal), answer
    return answer
