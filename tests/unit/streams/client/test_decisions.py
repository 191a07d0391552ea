"""The decisions of a client, without anything around them: retries, sequences, and what an answer means."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from outlast import Fault, Kind, RetryBudget, Scope, Unavailable
from outlast.extend import attach
from outlast.http import Answer, AnswerError
from outlast.streams import OffsetGoneError, OutcomeUnknownError, Producer, StreamError, StreamNotFoundError
from outlast.streams._client.decisions.failures import Asked, failure_of
from outlast.streams._client.decisions.retrying import Again, Attempts, Certainty, Effect, End, Failure, Rule
from outlast.streams._client.decisions.sequences import Sequences

LAST = 2**53 - 1


def failure(
    certainty: Certainty, kind: Kind = Kind.TRANSIENT, *, passes: bool = True, retry_after_s: float | None = None
) -> Failure:
    fault = Fault(kind, "code", "reason", "node", Scope.CALL, retry_after_s)
    return Failure(certainty, Unavailable("node", fault, 0.0, 1.0), fault, passes)


def run(
    failures: list[Failure], effect: Effect, *, deadline_s: float = 30.0, budget: RetryBudget | None = None, **options: Any
) -> tuple[list[float], Exception | None]:
    """Run failures through a rule; return the waits and the error that ended it, None if all of them were tried again."""
    rule_, attempts, now, waits = Rule(random.Random(5), budget=budget), Attempts(), 0.0, []
    for each in failures:
        attempts, step = rule_.after(each, attempts, stream="s", effect=effect, now=now, deadline_at=deadline_s, **options)
        if isinstance(step, End):
            return waits, step.error
        waits.append(step.wait_s)
        now += step.wait_s
    return waits, None


@given(
    failures=st.lists(
        st.builds(
            failure,
            st.sampled_from(Certainty),
            st.sampled_from(Kind),
            passes=st.booleans(),
            retry_after_s=st.none() | st.floats(0, 100),
        ),
        min_size=1,
        max_size=12,
    ),
    effect=st.sampled_from(Effect),
    deadline_s=st.floats(0.001, 100),
    waits_for_room=st.booleans(),
)
def test_whatever_happens_doubt_is_never_called_a_failure_and_waits_stay_before_the_deadline(
    failures: list[Failure], effect: Effect, deadline_s: float, *, waits_for_room: bool
) -> None:
    waits, error = run(failures, effect, deadline_s=deadline_s, waits_for_room=waits_for_room)
    assert sum(waits) < deadline_s
    asked = failures[: len(waits) + 1]
    doubt = effect is not Effect.NONE and any(each.certainty is Certainty.UNKNOWN for each in asked)
    if error is not None and doubt and effect is not Effect.SAME:
        assert isinstance(error, OutcomeUnknownError)
    if not doubt:
        assert not isinstance(error, OutcomeUnknownError)
    if effect is Effect.TWICE:
        assert all(each.certainty is not Certainty.UNKNOWN for each in failures[: len(waits)]), "what may be there was sent again"


def test_waits_grow_are_never_equal_and_obey_the_server() -> None:
    waits, _ = run([failure(Certainty.NOT_SENT)] * 8, Effect.NONE, deadline_s=1000.0)
    assert len(set(waits)) == 8
    assert all(0.05 <= wait <= 5.0 for wait in waits)
    assert sum(waits[:2]) < sum(waits[-2:])
    waits, _ = run([failure(Certainty.REFUSED, Kind.OVERLOADED, retry_after_s=10.0)] * 3, Effect.NONE, deadline_s=1000.0)
    assert all(10.0 <= wait <= 15.0 for wait in waits)


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    waits, error = run([failure(Certainty.REFUSED, Kind.OVERLOADED, retry_after_s=10.0)], Effect.NONE, deadline_s=5.0)
    assert waits == []
    assert isinstance(error, Unavailable)


def test_retries_have_a_budget_that_what_was_not_sent_does_not_use() -> None:
    empty = RetryBudget(ratio=0.1, per_s=0.0, tokens=2.0)
    waits, error = run([failure(Certainty.REFUSED)] * 5, Effect.ONCE, budget=empty, deadline_s=1000.0)
    assert len(waits) == 2
    assert isinstance(error, Unavailable)
    assert "the retry budget is used up" in error.__notes__[0]
    empty = RetryBudget(ratio=0.1, per_s=0.0, tokens=0.0)
    waits, error = run([failure(Certainty.NOT_SENT)] * 5, Effect.ONCE, budget=empty, deadline_s=1000.0)
    assert (len(waits), error) == (5, None)
    waits, error = run([failure(Certainty.UNKNOWN)] * 5, Effect.ONCE, budget=empty, deadline_s=1000.0)
    assert (len(waits), error) == (5, None), "what is in doubt is not given up"
    assert all(wait >= 5.0 for wait in waits)


def test_a_hundred_requests_that_are_refused_are_tried_again_a_tenth_of_the_times() -> None:
    shared = Rule(random.Random(1), budget=RetryBudget(ratio=0.1, per_s=0.0, tokens=0.0))
    retries = 0
    for _ in range(100):
        shared.budget.call()
        _, step = shared.after(failure(Certainty.REFUSED), Attempts(), stream="s", effect=Effect.NONE, now=0.0, deadline_at=30.0)
        retries += isinstance(step, Again)
    assert 9 <= retries <= 10


def test_a_full_disk_is_waited_for_only_by_who_wants_to_or_is_in_doubt() -> None:
    full = failure(Certainty.REFUSED, Kind.EXHAUSTED)
    assert run([full], Effect.ONCE)[0] == []
    assert len(run([full] * 3, Effect.ONCE, waits_for_room=True)[0]) == 3
    assert len(run([failure(Certainty.UNKNOWN), full, full], Effect.ONCE)[0]) == 3


def test_the_servers_cause_is_told_and_not_that_of_the_clients_own_throttle() -> None:
    theirs = failure(Certainty.REFUSED, Kind.OVERLOADED)
    fault = Fault(Kind.OVERLOADED, "throttled", "it accepted 0 of 9 calls", "node", Scope.CALL, 1.0)
    ours = Failure(Certainty.NOT_SENT, Unavailable("node", fault, 0.0, 1.0), fault, passes=True)
    assert run([theirs, ours, ours], Effect.NONE, deadline_s=1.0)[1] is theirs.error
    assert run([ours], Effect.NONE, deadline_s=0.5)[1] is ours.error


# Sequences.


class Server:
    """What a server keeps of producers, and the data it has stored."""

    def __init__(self) -> None:
        self.state: dict[str, tuple[int, int]] = {}
        self.stored: list[int] = []

    def append(self, producer: Producer, data: int) -> str:
        epoch, last = self.state.get(producer.id, (producer.epoch, -1))
        if producer.epoch < epoch:
            return "fenced"
        last = last if producer.epoch == epoch else -1
        if producer.sequence <= last:
            return "duplicate"
        if producer.sequence > last + 1:
            return "gap"
        self.state[producer.id] = (producer.epoch, producer.sequence)
        self.stored.append(data)
        return "stored"


@dataclass
class Sent:
    producer: Producer
    data: int


class SequencesMachine(RuleBasedStateMachine):
    """Appends that are stored, refused, lost or late: what is acknowledged is stored once, in order."""

    def __init__(self) -> None:
        super().__init__()
        ids = count()
        self.sequences = Sequences(lambda: f"p{next(ids)}")
        self.server = Server()
        self.numbers = count()
        self.acknowledged: list[int] = []
        self.late: list[Sent] = []

    def _sent(self, data: int) -> tuple[str, Producer]:
        producer = self.sequences.begin()
        said = self.server.append(producer, data)
        if said == "gap":
            self.sequences.refused()
            self.sequences.restart()
            producer = self.sequences.begin()
            said = self.server.append(producer, data)
        assert said in {"stored", "duplicate"}, said
        self.sequences.stored()
        self.acknowledged.append(data)
        return said, producer

    @rule(resends=st.integers(0, 2))
    def append(self, resends: int) -> None:
        data = next(self.numbers)
        said, producer = self._sent(data)
        assert said == "stored", "new data was taken for old"
        for _ in range(resends):
            assert self.server.append(producer, data) == "duplicate"

    @rule()
    def refused(self) -> None:
        next(self.numbers)
        self.sequences.begin()
        self.sequences.refused()

    @rule(arrives=st.sampled_from(["now", "late", "never"]))
    def in_doubt(self, arrives: str) -> None:
        data, producer = next(self.numbers), self.sequences.begin()
        if arrives == "now":
            self.server.append(producer, data)
        elif arrives == "late":
            self.late.append(Sent(producer, data))

    @rule()
    def arrive(self) -> None:
        if self.late:
            sent = self.late.pop(0)
            self.server.append(sent.producer, sent.data)

    @rule()
    def forget(self) -> None:
        """The server forgets, as after a week, or when the stream is another one. What is late is not as late as that."""
        if not self.late:
            self.server.state.clear()

    @rule()
    def jump(self) -> None:
        """Go to the end of the numbers."""
        if not self.sequences.in_doubt and not self.late:
            self.sequences.next = self.sequences.epoch = LAST
            self.server.state[self.sequences.id] = (LAST, LAST - 1)

    @invariant()
    def stored_once_and_in_order(self) -> None:
        stored = self.server.stored
        assert len(stored) == len(set(stored))
        assert set(self.acknowledged) <= set(stored)
        assert [data for data in stored if data in set(self.acknowledged)] == self.acknowledged
        assert all(before < after for before, after in pairwise(self.acknowledged))


TestSequences = SequencesMachine.TestCase


def test_behind_the_last_sequence_comes_an_epoch_and_behind_the_last_epoch_a_producer() -> None:
    ids = iter("abc")
    sequences = Sequences(lambda: next(ids))
    sequences.next = LAST - 1
    seen = []
    for _ in range(3):
        seen.append(sequences.begin())
        sequences.stored()
    assert seen == [Producer("a", 0, LAST - 1), Producer("a", 0, LAST), Producer("a", 1, 0)]
    sequences.epoch, sequences.next = LAST, LAST
    seen = [sequences.begin()]
    sequences.stored()
    seen.append(sequences.begin())
    assert seen == [Producer("a", LAST, LAST), Producer("b", 0, 0)]
    sequences.epoch = LAST
    assert sequences.begin() == Producer("c", 0, 0), "one in doubt in the last epoch"


# Answers.

PROBLEM = "application/problem+json"


@dataclass
class Case:
    status: int
    certainty: Certainty
    passes: bool
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    error: type[Exception] = Unavailable


def told(code: str, kind: str) -> tuple[bytes, dict[str, str]]:
    return f'{{"code": "{code}", "kind": "{kind}", "detail": "why"}}'.encode(), {"content-type": PROBLEM}


U, R = Certainty.UNKNOWN, Certainty.REFUSED
CASES = [
    # Of any server: above 500 nobody knows, but where the status says that nothing was done.
    Case(500, U, True),
    Case(502, U, True),
    Case(503, U, True),
    Case(504, U, True),
    Case(507, R, True),
    Case(501, R, False, error=AnswerError),
    Case(505, R, False, error=AnswerError),
    Case(429, R, True),
    Case(408, R, True),
    Case(425, R, True),
    Case(400, R, False, error=StreamError),
    Case(401, R, False, error=AnswerError),
    Case(403, R, False, error=AnswerError),
    Case(405, R, False, error=AnswerError),
    Case(302, R, False, error=AnswerError),
    # Of a node, which says it.
    Case(503, R, True, *told("stopping", "stopping")),
    Case(503, R, True, *told("EIO", "transient")),
    Case(503, R, False, *told("EROFS", "fatal"), error=AnswerError),
    Case(503, R, True, *told("concurrency", "overloaded")),
    Case(503, R, True, *told("expired", "overloaded"), error=StreamError),
    Case(507, R, True, *told("ENOSPC", "exhausted")),
    Case(504, U, True, *told("outcome unknown", "transient")),
    Case(500, U, True, *told("bug", "bug")),
    Case(429, R, True, *told("rate", "overloaded")),
    Case(429, R, False, *told("limit", "exhausted"), error=StreamError),
    Case(410, R, False, *told("deleted", "rejected"), error=StreamNotFoundError),
    Case(410, R, False, error=OffsetGoneError),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.status} {case.body.decode()}")
def test_an_answer_says_whether_it_was_done_and_whether_it_may_be(case: Case) -> None:
    error = AnswerError("node: POST /", Answer(case.status, case.headers, case.body))
    found = failure_of(error, Asked("s", Effect.ONCE, "append", producer=Producer("p", 0, 0)), "node")
    assert (found.certainty, found.passes, type(found.error).__mro__[:-2].count(case.error) > 0) == (
        case.certainty,
        case.passes,
        True,
    )


@pytest.mark.parametrize(
    "members", [b"{", b"[]", b"null", b'{"code": 1}', b"[" * 100_000, b'{"oldest": "x", "position": true}', b"\xff"]
)
@pytest.mark.parametrize("status", [400, 403, 409, 410, 413, 500])
def test_a_problem_that_is_none_is_read_all_the_same(members: bytes, status: int) -> None:
    headers = {"content-type": PROBLEM, "producer-epoch": "-1_0", "producer-expected-seq": "x" * 100}
    error = AnswerError("node: POST /", Answer(status, headers, members))
    found = failure_of(error, Asked("s", Effect.ONCE, "append", producer=Producer("p", 0, 0)), "node")
    assert str(found.error)


def test_an_error_without_a_fault_is_unknown_and_a_deadline_before_sending_is_not() -> None:
    asked = Asked("s", Effect.ONCE, "append")
    assert failure_of(OSError("reset"), asked, "node").certainty is Certainty.UNKNOWN
    late = failure_of(_with_fault("deadline over"), asked, "node")
    assert (late.certainty, late.passes) == (Certainty.NOT_SENT, True)


def _with_fault(code: str) -> Exception:
    error = StreamError("s", "late")
    attach(error, Fault(Kind.TRANSIENT, code, "late", "node", Scope.CALL))
    return error
