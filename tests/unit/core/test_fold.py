"""The fold against a plain count of its own: conservation under any order and any clock, nothing distinct hidden, bounds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outlast._core.fold import OTHERS_KEY, Fold, FoldPolicy, Summary, What


def run_due(fold: Fold, until: float) -> list[tuple[float, Summary]]:
    """Call `due` exactly when it is asked for, up to `until`."""
    said: list[tuple[float, Summary]] = []
    while (at := fold.next_due_at()) is not None and at <= until:
        said += [(at, summary) for summary in fold.due(at)]
    return said


def test_a_storm_of_twenty_minutes_is_eight_lines_and_one_when_it_is_over() -> None:
    fold = Fold()
    shown, said = 0, []
    for tick in range(1200 * 10):
        now = tick / 10
        shown += fold.seen("refused", now, example="first")
        said += [(at, summary.what, summary.over) for at, summary in run_due(fold, now)]
    said += [(at, summary.what, summary.over) for at, summary in run_due(fold, 10_000.0)]
    assert shown == 1
    reminders = [round(at) for at, what, _ in said if what is What.REMINDER]
    assert reminders == [5, 15, 35, 75, 155, 315, 635]
    assert said[-1] == (pytest.approx(1199.9 + 30.0), What.QUIET, True)
    assert len(said) == 8
    assert fold.next_due_at() is None
    assert len(fold) == 0
    assert fold.totals.seen == 12_000 == fold.totals.shown + fold.totals.summarised


def test_the_first_occurrences_are_shown_up_to_the_burst() -> None:
    fold = Fold(FoldPolicy(burst=3))
    assert fold.seen("a", 0.0, 2) == 2
    assert fold.seen("a", 0.1, 5) == 1
    assert fold.seen("a", 0.2) == 0
    assert fold.seen("a", 0.2, 0) == 0
    assert fold.seen("b", 0.2, 0) == 0
    assert fold.totals.seen == 8


def test_what_never_folded_is_forgotten_without_a_word() -> None:
    fold = Fold()
    fold.seen("once", 0.0)
    assert run_due(fold, 100.0) == []
    assert len(fold) == 0
    assert fold.seen("once", 101.0) == 1, "and is shown again"


def test_a_reminder_says_nothing_when_nothing_came() -> None:
    fold = Fold(FoldPolicy(quiet_s=60.0))
    fold.seen("a", 0.0, 2)
    said = run_due(fold, 1_000.0)
    assert [(at, summary.what, summary.count) for at, summary in said] == [(5.0, What.REMINDER, 1), (60.0, What.QUIET, 0)]


def test_a_summary_gives_the_first_example_and_exact_counts_and_times() -> None:
    fold = Fold()
    for tick in range(10):
        fold.seen("a", float(tick) / 10, example=f"number {tick}")
    (summary,) = fold.due(5.1)
    assert summary == Summary("a", "number 0", 9, 10, 0.0, 0.9, What.REMINDER, over=False)
    fold.seen("a", 6.0)
    assert fold.end(7.0) == [Summary("a", "number 0", 1, 11, 0.0, 6.0, What.REMINDER, over=True)]
    assert fold.end(7.0) == []
    assert fold.seen("a", 8.0) == 1


def test_a_flush_after_the_quiet_time_says_quiet() -> None:
    fold = Fold()
    fold.seen("a", 0.0, 2)
    (summary,) = fold.end(31.0)
    assert summary.what is What.QUIET


def test_resolved_is_said_only_of_an_open_storm() -> None:
    fold = Fold()
    assert fold.resolve("a", 0.0) is None
    fold.seen("a", 0.0, 4)
    summary = fold.resolve("a", 2.0)
    assert summary is not None
    assert (summary.what, summary.count, summary.total, summary.over) == (What.RESOLVED, 3, 4, True)
    assert fold.resolve("a", 2.0) is None
    assert run_due(fold, 100.0) == []
    assert fold.seen("a", 3.0) == 1


def test_resolving_again_and_again_does_not_fill_the_schedule() -> None:
    fold = Fold()
    for _ in range(10_000):
        fold.seen("a", 0.0, 2)
        fold.resolve("a", 0.0)
    assert len(fold._heap) <= 100


def test_a_flood_of_distinct_keys_is_one_named_storm_with_an_exact_count() -> None:
    fold = Fold(FoldPolicy(keys_max=100))
    shown, said = 0, []
    for number in range(100_000):
        now = number / 1_000
        shown += fold.seen(number, now, example=f"example {number}")
        said += run_due(fold, now)
        assert len(fold) <= 100
    assert shown <= 100 + 10 + 100, "the first hundred, ten at once, then one a second"
    said += run_due(fold, 1_000.0)
    assert {summary.key for _, summary in said} == {OTHERS_KEY}
    assert said[0][1].what is What.OTHERS
    assert said[0][0] == pytest.approx(0.11), "it announces itself when it opens"
    assert said[0][1].example == "example 110"
    assert sum(summary.count for _, summary in said) == 100_000 - shown
    assert [summary.over for _, summary in said] == [False] * (len(said) - 1) + [True]
    assert len(said) < 10


def test_a_new_kind_in_the_middle_of_a_flood_is_shown_while_the_flood_rests() -> None:
    fold = Fold(FoldPolicy(keys_max=10))
    for number in range(100):
        fold.seen(number, 0.0)
    assert fold.seen("new", 0.5) == 0
    assert fold.seen("new", 1.5) == 1, "one a second"
    assert fold.seen("new", 1.6) == 0, "it had no place, so it counts among the others"


def test_storms_that_were_open_before_a_flood_keep_their_exact_counts() -> None:
    fold = Fold(FoldPolicy(keys_max=10))
    fold.seen("storm", 0.0)
    for number in range(1_000):
        fold.seen(number, 1.0)
        fold.seen("storm", 1.0)
    summaries = {summary.key: summary for summary in fold.end(2.0)}
    assert summaries["storm"].total == 1_001
    assert summaries[OTHERS_KEY].total == 1_000 - 9 - 10


def test_storms_that_are_over_make_room_even_when_nobody_asks_what_is_due() -> None:
    fold = Fold(FoldPolicy(keys_max=2))
    fold.seen("a", 0.0, 5)
    fold.seen("b", 0.0)
    assert fold.seen("c", 100.0) == 1
    assert len(fold) == 2
    assert fold.seen("d", 100.0) == 1
    assert sum(summary.count for summary in fold.end(100.0)) == 4
    assert fold.totals.pending == 0


def test_a_burst_of_one_unknown_key_in_a_full_fold_shows_one() -> None:
    fold = Fold(FoldPolicy(keys_max=1))
    fold.seen("a", 0.0)
    assert fold.seen("b", 0.0, 7) == 1
    assert fold.totals.pending == 6


def test_few_others_a_second_are_shown_one_at_a_time() -> None:
    fold = Fold(FoldPolicy(keys_max=1, others_per_s=0.01))
    fold.seen("a", 0.0)
    assert [fold.seen(f"b{number}", 0.0) for number in range(3)] == [1, 0, 0]
    assert fold.seen("b9", 101.0) == 1


def test_a_clock_that_is_set_back_by_a_day_delays_no_more_than_an_interval() -> None:
    fold = Fold()
    fold.seen("a", 86_400.0, 2)
    fold.seen("a", 10.0)
    fold.due(10.0)
    assert [(at, summary.what, summary.count) for at, summary in run_due(fold, 1_000.0)] == [
        (15.0, What.REMINDER, 2),
        (40.0, What.QUIET, 0),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"burst": 0},
        {"keys_max": 0},
        {"reminder_factor": 0.5},
        {"reminder_first_s": 0.0},
        {"reminder_max_s": 1.0},
        {"quiet_s": 0.0},
        {"others_per_s": 0.0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|above 0"):
        FoldPolicy(**wrong)


KEYS = st.integers(0, 12)
POLICIES = st.builds(
    FoldPolicy,
    burst=st.integers(1, 3),
    quiet_s=st.sampled_from([1.0, 7.0, 30.0]),
    reminder_max_s=st.sampled_from([5.0, 20.0]),
    keys_max=st.integers(1, 6),
    others_per_s=st.sampled_from([0.1, 1.0, 10.0]),
)


@given(POLICIES, st.lists(KEYS, max_size=60))
def test_the_first_of_each_kind_is_shown_while_there_is_a_place(policy: FoldPolicy, keys: list[int]) -> None:
    fold, known = Fold(policy), set[int]()
    for key in keys:
        shown = fold.seen(key, 0.0)
        if key not in known and len(known) < policy.keys_max:
            assert shown == 1
            known.add(key)


class AnyOrderAnyClock(RuleBasedStateMachine):
    """Every call in any order, with a clock that runs, stands, and is set forward and back."""

    def __init__(self) -> None:
        super().__init__()
        self.fold: Fold | None = None
        self.now = 0.0
        self.came: Counter[object] = Counter()
        self.shown: Counter[object] = Counter()
        self.said: Counter[object] = Counter()
        self.announced = True

    @property
    def folds(self) -> Fold:
        assert self.fold is not None
        return self.fold

    @precondition(lambda self: self.fold is None)
    @rule(policy=POLICIES)
    def begin(self, policy: FoldPolicy) -> None:
        self.fold = Fold(policy)

    def hear(self, summaries: list[Summary]) -> None:
        for summary in summaries:
            assert summary.count >= 0
            assert summary.total >= summary.count
            assert (summary.key is OTHERS_KEY) == (summary.what is What.OTHERS)
            self.said[summary.key] += summary.count

    @precondition(lambda self: self.fold is not None)
    @rule(key=KEYS, count=st.integers(1, 4))
    def occurs(self, key: int, count: int) -> None:
        shown = self.folds.seen(key, self.now, count, example=key)
        assert 0 <= shown <= count
        assert shown <= self.folds.policy.burst
        self.came[key] += count
        self.shown[key] += shown

    @precondition(lambda self: self.fold is not None)
    @rule(seconds=st.sampled_from([0.01, 1.0, 5.0, 40.0, 1e6, -0.01, -10.0, -1e6]))
    def time_goes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.fold is not None)
    @rule()
    def asked(self) -> None:
        self.hear(self.folds.due(self.now))
        at = self.folds.next_due_at()
        assert at is None or at > self.now

    @precondition(lambda self: self.fold is not None)
    @rule(key=KEYS)
    def resolved(self, key: int) -> None:
        summary = self.folds.resolve(key, self.now)
        if summary is not None:
            self.hear([summary])

    @precondition(lambda self: self.fold is not None)
    @rule()
    def flushed(self) -> None:
        self.hear(self.folds.end(self.now))
        assert self.folds.totals.pending == 0
        assert len(self.folds) == 0

    @invariant()
    def nothing_is_lost_and_nothing_is_invented(self) -> None:
        if self.fold is None:
            return
        totals = self.fold.totals
        assert totals.seen == self.came.total()
        assert totals.shown == self.shown.total()
        assert totals.summarised == self.said.total()
        assert totals.seen == totals.shown + totals.summarised + totals.pending
        for key, came in self.came.items():
            assert self.shown[key] + self.said[key] <= came
        if totals.pending:
            assert self.fold.next_due_at() is not None, "what is pending has a time at which it is told"

    @invariant()
    def memory_is_bounded(self) -> None:
        if self.fold is not None:
            assert len(self.fold) <= self.fold.policy.keys_max
            assert len(self.fold._heap) <= 2 * len(self.fold) + 65


TestAnyOrderAnyClock = AnyOrderAnyClock.TestCase
