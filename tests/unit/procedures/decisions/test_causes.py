"""Causes: what more than 20 keys fail by holds the kind; canaries find out when it is gone, and waves release what waited."""

from __future__ import annotations

import pytest
from front_cases import BAD, BUG, DOWN, STEP, Fronts, key

from outlast import Fault, Kind
from outlast.procedures._decisions.causes import OPEN_MAX, SUSPECTS_MAX, CauseNews
from outlast.procedures._decisions.front import Go, KeyRefusal, Why
from outlast.procedures._model import KeyOf, ProcedureState, Submission

OTHER = Fault(Kind.TRANSIENT, "timeout", "no answer", source="metasrv")
CAUSES = [kind for kind in Kind if kind not in {Kind.REJECTED, Kind.CONTENDED, Kind.STOPPING}]


def pass_step(a: Fronts, of: KeyOf) -> None:
    """A step succeeds, and with it the procedure."""
    a.front.step_done(a.now, of, STEP)
    a.front.ended(a.now, of, ProcedureState.DONE)


def until_the_next(a: Fronts) -> float:
    """Let the time pass until more may be claimed; return it."""
    wait = a.front.next_in_s(a.now)
    assert wait is not None
    a.now += wait
    return wait


def waves(a: Fronts, numbers: range) -> list[int]:
    """Let all that is released pass; return the sizes of the shares."""
    sizes, first = list[int](), numbers.start
    while (share := a.share()) is not None and share.count_max is not None:
        taken = [key(number) for number in range(first, min(first + share.count_max, numbers.stop))]
        first += len(taken)
        a.claim(share, *taken)
        sizes.append(len(taken))
        for of in taken:
            pass_step(a, of)
    return sizes


@pytest.mark.parametrize("kind", CAUSES, ids=lambda kind: kind.name)
def test_the_twenty_first_key_that_fails_by_one_fault_opens_a_cause(kind: Kind) -> None:
    a, fault = Fronts(), Fault(kind, "x", "why", source="somewhere")
    assert [a.fail(key(number), fault).counts for number in range(20)] == [True] * 20
    assert a.news() == []
    assert a.share() is not None
    verdict = a.fail(key(20), fault)
    assert not verdict.counts
    assert a.news() == [CauseNews.OPENED]
    assert [(cause.kind, cause.fault, cause.failures, cause.is_gone) for cause in a.front.open_causes] == [
        ("create", fault, 21, False)
    ]


@pytest.mark.parametrize("kind", [Kind.REJECTED, Kind.CONTENDED, Kind.STOPPING], ids=lambda kind: kind.name)
def test_what_is_the_requests_own_never_makes_a_cause(kind: Kind) -> None:
    a, fault = Fronts(), Fault(kind, "x", "why", source="somewhere")
    assert all(a.fail(key(number), fault).counts for number in range(1000))
    assert a.front.counts.causes == 0


def test_one_key_that_fails_a_thousand_times_makes_no_cause() -> None:
    a = Fronts()
    assert all(a.fail(key(number % 20)).counts for number in range(1000))
    assert a.front.counts.causes == 0


def test_a_success_in_the_step_shows_that_each_failure_was_its_keys_own() -> None:
    a = Fronts()
    a.opened(20)
    a.front.step_done(a.now, key(99), "another step")
    a.front.step_done(a.now, key(99, "drop"), STEP)
    a.front.step_done(a.now, key(99), STEP)
    a.opened(20)
    assert a.front.counts.causes == 0
    a.fail(key(20))
    assert a.front.counts.causes == 1


def test_another_step_or_kind_or_fault_is_counted_by_itself() -> None:
    a = Fronts()
    for number in range(20):
        a.fail(key(number))
        a.fail(key(number), OTHER)
        a.fail(key(number), DOWN, "another step")
        a.fail(key(number, "drop"))
    assert a.front.counts.causes == 0


def test_a_cause_holds_its_kind_and_no_other() -> None:
    a = Fronts()
    a.opened()
    shares = a.front.shares(a.now, ["create", "drop"])
    assert [(list(share.kinds), share.count_max) for share in shares] == [(["create"], 1), (["drop"], None)]
    a.front.claimed(a.now, shares[0], [("a", key(1))], 1)
    assert [list(share.kinds) for share in a.front.shares(a.now, ["create", "drop"])] == [["drop"]]
    assert a.submit(key(500)) == Go(probe=False, begin=False), "it waits in the store"
    assert a.submit(key(500, "drop")) == Go(probe=False, begin=True)


def test_who_does_not_want_to_wait_is_told_the_cause() -> None:
    a = Fronts()
    a.opened()
    a.now += 3.0
    answer = a.front.submit(a.now, key(500), waits=False)
    assert isinstance(answer, KeyRefusal)
    assert (answer.fault, answer.since_s, answer.why, answer.id) == (DOWN, 3.0, Why.CAUSE, "")
    assert 0.0 < answer.retry_after_s <= 1.0
    assert a.front.explain(a.now, key(501)) == answer
    share = a.share()
    assert share is not None
    a.claim(share, key(7))
    pass_step(a, key(7))
    assert isinstance(a.front.submit(a.now, key(500), waits=False), Go), "it is gone, and what waits is released"


def test_a_key_that_failed_by_itself_is_told_its_own_cause_while_another_is_open() -> None:
    a = Fronts()
    a.opened()
    a.dead(key(1), DOWN, until_s=100.0)
    a.dead(key(600), BAD, until_s=100.0)
    said = [a.front.explain(a.now, of) for of in (key(1), key(600))]
    assert [(each.why, each.fault) for each in said if each] == [(Why.CAUSE, DOWN), (Why.FAILING, BAD)]


def test_five_thousand_keys_for_one_cause_are_tried_one_at_a_time_and_released_in_waves() -> None:
    """Each canary is another key, never-tried ones among them; nothing counts; the first success closes it."""
    a = Fronts()
    for number in range(5000):
        a.make(key(number))
    verdicts = [a.fail(key(number)) for number in range(128)]
    assert [verdict.counts for verdict in verdicts] == [True] * 20 + [False] * 108
    line, tried, waits = list(range(5000)), list[int](), list[float]()
    for _ in range(200):
        share = a.share()
        assert share is not None
        assert share.count_max == 1
        number = next(number for number in line if f"create-table-{number}" not in share.without)
        a.claim(share, key(number))
        tried.append(number)
        assert a.share() is None, "one at a time"
        a.now += 0.01
        assert not a.fail(key(number)).counts
        assert a.share() is None
        waits.append(until_the_next(a))
    assert all(len(set(tried[start : start + 60])) == 60 for start in range(140)), "another key each time"
    assert any(number > 20 for number in tried), "those that were never tried too"
    assert 0.1 <= waits[0] <= 0.2
    assert 0.5 <= min(waits[4:]) < max(waits) <= 1.0, "whoever finds it gone comes within a second"
    assert a.news().count(CauseNews.OPENED) == 1
    share = a.share()
    assert share is not None
    a.claim(share, key(4999))
    a.front.step_done(a.now, key(4999), STEP)
    assert a.news() == [CauseNews.GONE], "the first success closes it"
    a.front.ended(a.now, key(4999), ProcedureState.DONE)
    assert waves(a, range(4999)) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert a.front.counts.canaries == 201, "none of a wave is one"
    assert a.news() == [CauseNews.OVER]
    share = a.share()
    assert share is not None
    assert share.count_max is None, "the rest may go"


def test_a_longer_wait_that_the_peer_asked_for_is_obeyed() -> None:
    a, busy = Fronts(), Fault(Kind.OVERLOADED, "429", "slow down", source="metasrv", retry_after_s=30.0)
    a.opened(fault=busy)
    share = a.share()
    assert share is not None
    a.claim(share, key(1))
    a.fail(key(1), busy)
    assert 30.0 <= until_the_next(a) <= 45.0


def gone(count: int = 21) -> Fronts:
    """A cause of which one canary has passed."""
    a = Fronts()
    a.opened(count)
    share = a.share()
    assert share is not None
    a.claim(share, key(1000))
    pass_step(a, key(1000))
    assert a.news()[-1] is CauseNews.GONE
    return a


def test_a_failed_wave_goes_back_to_canaries_in_the_same_incident() -> None:
    a = gone()
    for size in (1, 2):
        share = a.share()
        assert share is not None
        assert share.count_max == size
        a.claim(share, *map(key, range(size)))
        for number in range(size):
            pass_step(a, key(number))
    share = a.share()
    assert share is not None
    assert share.count_max == 4
    a.claim(share, *map(key, range(4)))
    for number in range(3):
        assert a.share() is None, "a wave at a time"
        assert not a.fail(key(number)).counts
    assert a.news() == [CauseNews.FAILED, CauseNews.FAILED, CauseNews.BACK]
    assert a.share() is None
    assert 0.1 <= until_the_next(a) <= 0.2, "the waits begin again"
    share = a.share()
    assert share is not None
    assert share.count_max == 1
    a.claim(share, key(2000))
    pass_step(a, key(2000))
    assert a.news() == [CauseNews.GONE]
    assert a.front._causes.opened == 1


def test_one_key_that_still_fails_does_not_hold_up_the_others() -> None:
    """In a wave of two one passes and one fails: that is no cause any more."""
    a = gone()
    share = a.share()
    assert share is not None
    a.claim(share, key(0))
    pass_step(a, key(0))
    share = a.share()
    assert share is not None
    a.claim(share, key(1), key(2))
    assert not a.fail(key(1)).counts
    pass_step(a, key(2))
    share = a.share()
    assert share is not None
    assert share.count_max == 4


def test_when_nobody_waits_any_more_the_incident_is_over() -> None:
    a = gone()
    share = a.share()
    assert share is not None
    a.claim(share)
    assert a.news() == [CauseNews.OVER]
    b = gone()
    assert waves(b, range(5)) == [1, 2, 2], "of the wave of four only two were there"
    assert b.news() == [CauseNews.OVER]


def test_what_a_claim_was_not_asked_for_does_not_end_a_wave() -> None:
    """One slot was free, and one record was found."""
    a = gone()
    for asked, expected in ((1, 1), (1, 2)):
        share = a.share()
        assert share is not None
        assert share.count_max == expected
        a.claim(share, key(expected), asked=asked)
        pass_step(a, key(expected))
    share = a.share()
    assert share is not None
    assert share.count_max == 1, "the other of the wave of two"


def claimed_canary() -> tuple[Fronts, KeyOf]:
    a = Fronts()
    a.opened()
    a.news()
    share = a.share()
    assert share is not None
    a.claim(share, key(30))
    assert a.share() is None
    return a, key(30)


def test_a_canary_that_is_cancelled_frees_its_place() -> None:
    a, canary = claimed_canary()
    a.front.ended(a.now, canary, ProcedureState.CANCELLED)
    assert until_the_next(a) <= 0.2
    share = a.share()
    assert share is not None
    assert share.count_max == 1
    assert [cause.is_gone for cause in a.front.open_causes] == [False], "it neither clears nor extends the cause"
    assert a.news() == []


def test_a_canary_that_fails_by_another_fault_frees_its_place_and_answers_for_itself() -> None:
    a, canary = claimed_canary()
    assert a.front.attempt_failed(a.now, canary, OTHER, STEP).counts, "its own affair"
    assert until_the_next(a) <= 0.2, "the waits do not grow by it"
    assert a.share() is not None
    assert [cause.is_gone for cause in a.front.open_causes] == [False]
    assert a.news() == []


def test_a_canary_that_waits_or_is_given_back_frees_its_place() -> None:
    a, canary = claimed_canary()
    a.front.left(a.now, canary)
    until_the_next(a)
    assert a.share() is not None


def test_a_canary_of_which_nothing_is_heard_frees_its_place_with_its_lease() -> None:
    """Its step hangs, or whoever had it was killed."""
    a, canary = claimed_canary()
    a.now += 29.0
    assert a.share() is None
    assert until_the_next(a) == 1.0
    share = a.share()
    assert share is not None
    a.claim(share, key(31))
    assert a.share() is None
    pass_step(a, canary)
    assert a.news() == [CauseNews.GONE], "what it says later counts"


def test_a_key_whose_deadline_passes_while_it_is_queued_has_no_place_to_keep() -> None:
    """The place is taken by the claim: what is never claimed never had it. And a probe that expired is the next one's."""
    a = Fronts()
    a.opened()
    a.dead(key(600), BAD, until_s=1.0)
    a.now += 1.0
    assert a.make(key(600), Submission.REVIVED) == Go(probe=True, begin=False)
    assert a.share() is not None
    a.front.ended(a.now, key(600), ProcedureState.EXPIRED)
    assert a.submit(key(600)) == Go(probe=True, begin=False)


def test_an_offer_of_which_nobody_says_what_came_of_it_lapses() -> None:
    a = Fronts()
    a.opened()
    assert a.share() is not None
    assert a.share() is None, "two who claim at once are not two canaries"
    a.now += 5.0
    assert a.share() is not None


def test_an_offer_that_found_nothing_is_made_again_and_canaries_start_over_with_the_first() -> None:
    a, canary = claimed_canary()
    a.fail(canary)
    until_the_next(a)
    share = a.share()
    assert share is not None
    assert share.without == ("create-table-30",)
    a.claim(share)
    share = a.share()
    assert share is not None
    assert share.without == (), "all that wait were tried"
    a.claim(share, asked=0)
    assert a.share() is not None, "an error of the store took no place"


def test_of_two_causes_of_a_kind_neither_clears_the_other() -> None:
    a = Fronts()
    a.opened()
    for number in range(21):
        a.fail(key(number), OTHER, "second")
    assert a.front.counts.causes == 2
    until_the_next(a)
    share = a.share()
    assert share is not None
    assert share.count_max == 1
    a.claim(share, key(40))
    a.front.step_done(a.now, key(40), STEP)
    assert {cause.fault: cause.is_gone for cause in a.front.open_causes} == {DOWN: True, OTHER: False}
    a.fail(key(40), OTHER, "second")
    assert {cause.fault: cause.is_gone for cause in a.front.open_causes} == {DOWN: True, OTHER: False}
    until_the_next(a)
    share = a.share()
    assert share is not None
    assert share.count_max == 1


def test_keys_that_are_dead_by_a_cause_are_forgotten_when_it_is_gone() -> None:
    a = Fronts()
    for number in range(10):
        a.fail(key(number))
        a.dead(key(number), DOWN, until_s=1e6)
    a.dead(key(700), BAD, until_s=1e6)
    a.dead(key(701, "drop"), DOWN, until_s=1e6)
    for number in range(10, 21):
        a.fail(key(number))
    share = a.share()
    assert share is not None
    a.claim(share, key(12))
    pass_step(a, key(12))
    assert a.front.counts.failing == 2, "not those of another fault, nor of another kind"
    assert isinstance(a.submit(key(3)), Go)


@pytest.mark.parametrize("how", ["fixed", "clear the kind", "clear all"])
def test_whoever_says_that_the_cause_is_gone_lets_one_go_first(how: str) -> None:
    a = Fronts()
    a.opened()
    a.news()
    if how == "fixed":
        a.front.fixed("elsewhere", DOWN.kind, DOWN.code)
        assert a.news() == []
        a.front.fixed(*DOWN.key)
    else:
        a.front.cleared("create" if how == "clear the kind" else "")
    assert a.news() == [CauseNews.TOLD]
    share = a.share()
    assert share is not None
    assert share.count_max == 1
    a.claim(share, key(5))
    a.fail(key(5))
    assert a.news() == [CauseNews.BACK], "they were wrong"
    a.front.fixed(*DOWN.key)
    a.front.fixed(*DOWN.key)
    assert a.news() == [CauseNews.TOLD]


def test_clear_of_one_key_says_nothing_about_a_cause() -> None:
    a = Fronts()
    a.opened()
    a.front.cleared("create", "table-3")
    assert [cause.is_gone for cause in a.front.open_causes] == [False]


def test_what_was_fixed_before_it_became_a_cause_is_counted_from_the_first_key_again() -> None:
    a = Fronts()
    a.opened(20)
    a.front.fixed(*DOWN.key)
    a.opened(20)
    assert a.front.counts.causes == 0


def test_a_thousand_faults_of_many_keys_are_counted_in_bounded_memory() -> None:
    a = Fronts()
    for code in range(SUSPECTS_MAX + 50):
        a.fail(key(code), Fault(Kind.BUG, f"ValueError@shop:{code}", ""))
    causes = a.front._causes
    assert len(causes._suspects) == SUSPECTS_MAX
    assert sum(map(len, causes._by_step.values())) == SUSPECTS_MAX
    assert ("create", STEP, ("", Kind.BUG, "ValueError@shop:0")) not in causes._suspects, "the first is forgotten"


def test_beyond_the_causes_that_may_be_open_a_fault_is_held_against_keys() -> None:
    a = Fronts()
    for kind in range(OPEN_MAX + 1):
        for number in range(30):
            counts = a.fail(key(number, f"kind {kind}"), BUG).counts
            assert counts is (number < 20 or kind == OPEN_MAX)
    assert a.front.counts.causes == OPEN_MAX
    assert all(len(suspect.keys) <= 21 for suspect in a.front._causes._suspects.values())


def test_events_that_nobody_takes_are_bounded_and_those_that_end_an_incident_are_kept() -> None:
    a = Fronts()
    a.opened()
    for number in range(3000):
        a.fail(key(number))
    a.front.step_done(a.now, key(1), STEP)
    events = a.front.events()
    assert len(events) <= 1001
    assert (events[0].what, events[-1].what) == (CauseNews.OPENED, CauseNews.GONE)
    assert events[-1].cause.failures == 3021, "exact"
