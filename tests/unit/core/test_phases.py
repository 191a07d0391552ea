"""The deadlines of the phases, and which exit code a stop ends in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outlast._core.phases import EXIT_BUG, EXIT_CLEAN, EXIT_FATAL, EXIT_FORCED, Phase, Plan, fair_limit_s, worst

SECONDS = st.floats(min_value=0.0, max_value=1e6)
DEADLINES = st.floats(min_value=0.001, max_value=1e5)


@given(SECONDS, DEADLINES, SECONDS, SECONDS)
def test_phases_are_left_in_their_order_and_never_beyond_the_deadline(
    now: float, deadline_s: float, later_s: float, children_s: float
) -> None:
    plan = Plan.begin(now, deadline_s)
    hurried = plan.hurried(now + later_s, now + children_s)
    for each in (plan, hurried):
        limits = [each.by[phase] for phase in Phase]
        assert limits == sorted(limits)
        assert limits[-1] <= now + deadline_s
        assert each.cancel_at <= each.by[Phase.DRAIN]
    assert all(hurried.by[phase] <= plan.by[phase] for phase in Phase)
    assert hurried.close_by == hurried.by[Phase.CLOSE]


def test_a_hurry_leaves_each_later_phase_what_it_would_have_had() -> None:
    plan = Plan.begin(100.0, 10.0)
    assert plan.cancel_at == 108.0
    hurried = plan.hurried(101.0)
    assert hurried.cancel_at == 101.0
    assert [round(hurried.by[phase], 6) for phase in (Phase.DRAIN, Phase.FLUSH, Phase.CLOSE)] == [101.8, 102.6, 103.0]
    assert hurried.hurried(101.5) == hurried
    assert plan.hurried(109.0) == plan, "the drain time is over anyway"
    assert round(plan.hurried(101.0, children_by=105.0).by[Phase.DRAIN], 6) == 105.2, "2 % to see the children to their end"
    assert round(plan.hurried(101.0, children_by=105.0).children_by, 6) == 105.0


def test_a_child_that_was_stopped_before_ends_in_the_drain_of_its_parent() -> None:
    alone = Plan.begin(100.0, 10.0)
    cut = alone.within(101.0, 103.0)
    assert [round(cut.by[phase], 6) for phase in Phase] == [100.5, 102.76, 102.92, 103.0, 103.0]
    assert round(cut.cancel_at, 6) == 102.6
    assert alone.within(109.0, 109.0).close_by == 109.0


@given(SECONDS, SECONDS, st.integers(min_value=1, max_value=50))
def test_steps_share_what_is_left(now: float, left_s: float, steps: int) -> None:
    ends, at = now + left_s, now
    for index in range(steps):
        limit_s = fair_limit_s(at, ends, steps - index)
        assert limit_s >= (ends - at) / (steps - index) * 0.999
        at += limit_s
    assert at <= ends * 1.001 + 1e-6


def test_the_worst_exit_code_counts() -> None:
    assert worst(()) == EXIT_CLEAN
    assert worst((EXIT_CLEAN, EXIT_FORCED)) == EXIT_FORCED
    assert worst((EXIT_FORCED, EXIT_BUG)) == EXIT_BUG
    assert worst((EXIT_BUG, EXIT_FATAL, EXIT_FORCED)) == EXIT_FATAL
