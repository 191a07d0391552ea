"""Faults as they are stored."""

from __future__ import annotations

import json

import pytest

from outlast import Fault, Kind
from outlast.extend import fault_of_record, fault_record


@pytest.mark.parametrize("kind", Kind)
def test_a_fault_that_was_stored_is_the_same_cause_again(kind: Kind) -> None:
    fault = Fault(kind, "57P03", "the database system is starting up", "db", hint="wait", retry_after_s=3.0)
    again = fault_of_record(json.loads(json.dumps(fault_record(fault))))
    assert (again.key, again.reason, again.hint) == (fault.key, fault.reason, fault.hint)
    assert again.retry_after_s is None


def test_any_text_is_made_plain_and_short() -> None:
    record = fault_record(Fault(Kind.BUG, "x" * 10_000, "\x00\ud800", "db"))
    assert len(record["code"]) == 200
    record["reason"].encode()


def test_what_a_later_version_wrote_is_shown_as_far_as_it_is_known() -> None:
    assert fault_of_record({"kind": "mood", "code": "7", "reason": None, "more": 1}) == Fault(Kind.BUG, "7", "")
