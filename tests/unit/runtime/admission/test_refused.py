"""The errors of admission: what they carry, and that they travel."""

from __future__ import annotations

import pickle

import pytest

import outlast
from outlast import Classifiers, Kind, OutlastError, Unavailable
from outlast.admission import Reason, Refusal, Refused, TooLargeError
from outlast.testing import run_virtual

REFUSAL = Refusal(Reason.MEMORY, 240 * 2**20, 256 * 2**20, 2.0)
NEVER = Refusal(Reason.RATE, 11.0, 10.0, None)


def test_a_refusal_says_what_by_which_check_and_when_to_come_back() -> None:
    refused = Refused("orders", REFUSAL, 7.0)
    assert isinstance(refused, Unavailable)
    assert str(refused) == (
        "orders refused this work by memory: 240.0 MiB in use, limit 256.0 MiB (retry after 2.0 s)"
        " - give the process more memory, or less to do"
    )
    assert (refused.reason, refused.since_s, refused.retry_after_s, refused.owner) == (Reason.MEMORY, 7.0, 2.0, None)


def test_a_refusal_is_classified_as_what_it_is() -> None:
    fault = Classifiers().classify(Refused("orders", REFUSAL))
    assert (fault.kind, fault.code, fault.source, fault.retry_after_s) == (Kind.OVERLOADED, "memory", "orders", 2.0)


def test_a_refusal_travels_to_another_process() -> None:
    refused = Refused("orders", REFUSAL, 7.0)
    copy = pickle.loads(pickle.dumps(refused))  # noqa: S301 - our own
    assert type(copy) is Refused
    assert (str(copy), copy.reason, copy.since_s, copy.fault) == (str(refused), Reason.MEMORY, 7.0, refused.fault)


def test_work_that_is_too_large_has_an_error_of_its_own_which_travels_too() -> None:
    error = TooLargeError("orders", NEVER)
    assert not isinstance(error, Unavailable)
    assert isinstance(error, OutlastError)
    assert str(error) == "orders can never let this work in: rate: 11 a second, limit 10 - divide it, or raise the limit"
    assert Classifiers().classify(error).kind is Kind.REJECTED
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(copy), str(copy), copy.refusal, copy.fault) == (TooLargeError, str(error), NEVER, error.fault)


def test_a_refusal_without_a_time_is_no_refused() -> None:
    with pytest.raises(ValueError, match="TooLargeError: coming back does not help"):
        Refused("orders", NEVER)


def test_a_refusal_inside_the_use_of_a_dependency_takes_nothing_down() -> None:
    async def main() -> None:
        peer = outlast.Dependency("peer")
        for _ in range(30):
            with pytest.raises(Refused):
                async with peer.use():
                    raise Refused("orders", REFUSAL)
        assert peer.state is outlast.State.UP

    run_virtual(main())
