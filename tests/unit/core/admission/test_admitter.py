"""The machine of an admission: who comes in, waits, is dropped, and that no slot and no token is lost."""

from __future__ import annotations

import random

from outlast._core.admission.admitter import Admitter
from outlast._core.admission.policy import AdmissionPolicy
from outlast._core.admission.queue import Place
from outlast._core.admission.standins import Concurrency
from outlast._core.admission.ticket import Ticket
from outlast._core.admission.values import Criticality, Reason, Refusal


def admitter(limit: int = 2) -> Admitter:
    return Admitter(AdmissionPolicy(concurrency=Concurrency(limit_start=limit)), random.Random(7))


def let_in(machine: Admitter, now: float, **asked: object) -> Ticket:
    got = machine.admit(now, **asked)  # type: ignore[arg-type]  # as `admit` has them
    assert isinstance(got, Ticket)
    return got


def queued(machine: Admitter, now: float, **asked: object) -> Place:
    got = machine.admit(now, **asked)  # type: ignore[arg-type]
    assert isinstance(got, Place)
    return got


def refused(machine: Admitter, now: float, **asked: object) -> Refusal:
    got = machine.admit(now, **asked)  # type: ignore[arg-type]
    assert isinstance(got, Refusal)
    return got


def test_a_slot_goes_on_to_whoever_waits() -> None:
    machine = admitter()
    first, _ = let_in(machine, 0.0), let_in(machine, 0.0)
    place = queued(machine, 0.01)
    [(settled, ticket)] = machine.release(first, 0.02)
    assert settled is place
    assert isinstance(ticket, Ticket)
    assert place.outcome is ticket
    assert (machine.in_flight, machine.waiting) == (2, 0)
    assert machine.release(first, 0.03) == (), "the second time changes nothing"
    assert machine.in_flight == 2


def test_a_waiter_is_dropped_when_its_time_is_over() -> None:
    machine = admitter(limit=1)
    let_in(machine, 0.0)
    place = queued(machine, 1.0)
    assert machine.next_expiry == 1.1
    assert machine.expire(1.05) == ()
    [(settled, refusal)] = machine.expire(1.1)
    assert settled is place
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.CONCURRENCY
    assert machine.next_expiry is None


def test_critical_work_is_let_in_beyond_the_limit_and_sheddable_work_never_waits() -> None:
    machine = admitter(limit=1)
    let_in(machine, 0.0, criticality=Criticality.SHEDDABLE)
    let_in(machine, 0.0, criticality=Criticality.CRITICAL)
    assert refused(machine, 0.0, criticality=Criticality.SHEDDABLE).reason is Reason.CONCURRENCY
    assert machine.in_flight == 2
