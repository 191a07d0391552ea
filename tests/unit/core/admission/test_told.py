"""A refusal as text and as a fault."""

from __future__ import annotations

import pytest

from outlast import Kind, Scope
from outlast._core.admission.told import HINTS, fault_of, told
from outlast._core.admission.values import Reason, Refusal

TEXTS = {
    Reason.DEADLINE: ((2.5, 1.0), "it would take 2.5 s, and there are 1 s"),
    Reason.RATE: ((120.0, 100.0), "120 a second, limit 100"),
    Reason.CONCURRENCY: ((64.0, 20.0), "64 under way or waiting, limit 20"),
    Reason.MEMORY: ((240 * 2**20, 256 * 2**20), "240.0 MiB in use, limit 256.0 MiB"),
    Reason.SHARE: ((12.0, 4.0), "12 of the same key or tenant under way or waiting, its share is 4"),
}


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
def test_every_reason_says_what_was_compared_and_what_to_do(reason: Reason) -> None:
    (seen, limit), text = TEXTS[reason]
    refusal = Refusal(reason, seen, limit, 1.5)
    assert told(refusal) == text
    fault = fault_of(refusal, "orders")
    assert (fault.kind, fault.code, fault.source, fault.scope) == (Kind.OVERLOADED, reason.value, "orders", Scope.CALL)
    assert (fault.reason, fault.retry_after_s, fault.hint) == (text, 1.5, HINTS[reason])
    assert not fault.is_evidence


def test_work_whose_deadline_has_passed_is_told_how_late_it_is() -> None:
    assert told(Refusal(Reason.DEADLINE, 0.5, -2.0, 1.0)) == "it is 2 s too late"


def test_work_that_can_never_come_in_is_rejected_and_names_no_time() -> None:
    fault = fault_of(Refusal(Reason.RATE, 11.0, 10.0, None), "orders")
    assert (fault.kind, fault.code, fault.retry_after_s) == (Kind.REJECTED, "too large", None)
    assert fault.reason == "rate: 11 a second, limit 10"
