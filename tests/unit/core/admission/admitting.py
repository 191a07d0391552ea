"""Admitters with a fixed limit, and a service in virtual time: arrivals by a script, slots that are held while work takes."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outlast._core.admission.admitter import Admitter
from outlast._core.admission.concurrency import Concurrency, Limit
from outlast._core.admission.policy import AdmissionPolicy
from outlast._core.admission.queue import Place, Queue
from outlast._core.admission.ticket import Ticket
from outlast._core.admission.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from outlast._core.admission.admitter import Settled


class FixedLimit(Limit):
    """A limit that stays, with the time that the latest work took: how real ones move has tests of its own."""

    __slots__ = ("samples",)

    def __init__(self, limit: int) -> None:
        super().__init__(Concurrency())
        self.limit = limit
        self.window_ends_at = float("inf")
        self.samples: list[float] = []

    def sample(self, now: float, began_at: float, in_flight_at_start: int, ok: bool) -> None:  # noqa: FBT001 - as a real one
        self.samples.append(now - began_at)
        latest = self.samples[-50:]
        if len(latest) >= 10:
            self.latency_s = sorted(latest)[len(latest) // 2]


def admitter(limit: int = 2, **policy: Any) -> Admitter:
    machine = Admitter(AdmissionPolicy(**policy), random.Random(7), Ticket)
    machine._limit = FixedLimit(limit)
    return machine


def let_in(machine: Admitter, now: float, **asked: Any) -> Ticket:
    got = machine.admit(now, **asked)
    assert isinstance(got, Ticket)
    return got


def queued(machine: Admitter, now: float, **asked: Any) -> Place:
    got = machine.admit(now, **asked)
    assert isinstance(got, Place)
    return got


def refused(machine: Admitter, now: float, **asked: Any) -> Refusal:
    got = machine.admit(now, **asked)
    assert isinstance(got, Refusal)
    return got


@dataclass(frozen=True, slots=True)
class Arrival:
    at: float
    tenant: str = ""
    key: str = ""
    deadline_s: float | None = None


def poisson(rng: random.Random, per_s: float, seconds: float) -> Iterator[float]:
    """The times of arrivals that know nothing of each other."""
    at = rng.expovariate(per_s)
    while at < seconds:
        yield at
        at += rng.expovariate(per_s)


@dataclass(slots=True)
class Run:
    """Seconds from arrival to the end of the work, by tenant and key; how many were refused; the order of going in."""

    machine: Admitter
    took_s: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: list[Refusal] = field(default_factory=list)
    waited: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_order: list[Arrival] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)

    def served(self, tenant: str) -> list[float]:
        return sorted(took for (name, _), all_took in self.took_s.items() if name == tenant for took in all_took)


def run(
    arrivals: Iterable[Arrival], slots: int = 8, work_s: Callable[[Arrival], float] = lambda _: 0.02, queue: Queue | None = None
) -> Run:
    result = Run(admitter(slots, queue=queue or Queue()))
    machine = result.machine
    ends: list[tuple[float, int, Ticket, Arrival]] = []
    number = 0

    def begin(ticket: Ticket, arrival: Arrival, now: float) -> None:
        nonlocal number
        number += 1
        result.in_order.append(arrival)
        result.waits_s.append(now - arrival.at)
        heapq.heappush(ends, (now + work_s(arrival), number, ticket, arrival))

    def carry_out(settled: Sequence[Settled], now: float) -> None:
        for place, outcome in settled:
            if isinstance(outcome, Ticket):
                begin(outcome, place.holder, now)
            else:
                result.refused[place.tenant, place.key] += 1
                result.refusals.append(outcome)

    def turn(until: float) -> None:
        """What ends, and whose wait does, before `until`."""
        while True:
            expiry = machine.next_expiry
            end = ends[0][0] if ends else float("inf")
            now = min(end, float("inf") if expiry is None else expiry)
            if now > until or now == float("inf"):
                return
            if end == now:
                _, _, ticket, arrival = heapq.heappop(ends)
                result.took_s.setdefault((arrival.tenant, arrival.key), []).append(now - arrival.at)
                carry_out(machine.release(ticket, now), now)
            else:
                carry_out(machine.expire(now), now)

    for arrival in sorted(arrivals, key=lambda arrival: arrival.at):
        now = arrival.at
        turn(now)
        deadline_at = None if arrival.deadline_s is None else now + arrival.deadline_s
        got = machine.admit(now, tenant=arrival.tenant, key=arrival.key, deadline_at=deadline_at)
        carry_out(machine.drain(), now)
        if isinstance(got, Ticket):
            begin(got, arrival, now)
        elif isinstance(got, Place):
            got.holder = arrival
            result.waited[arrival.tenant, arrival.key] += 1
        else:
            result.refused[arrival.tenant, arrival.key] += 1
            result.refusals.append(got)
    turn(float("inf"))
    return result
