"""The front of a process: whom it refuses, who joins, and what goes to the store."""

from __future__ import annotations

from front_cases import BAD, DOWN, STEP, Fronts, id_of, key, refused

from outlast import Fault, Kind
from outlast.procedures._decisions.front import Go, Join, Why
from outlast.procedures._decisions.register import Register
from outlast.procedures._model import KeyOf, ProcedureState, Submission


def test_a_new_key_goes_to_the_store_and_those_who_come_meanwhile_join_it() -> None:
    a = Fronts()
    assert a.submit(key(1)) == Go(probe=False, begin=True)
    assert a.submit(key(1)) == Join(""), "its record is being made"
    a.front.created(a.now, key(1), "id-1", Submission.CREATED, mine=True)
    assert [a.submit(key(1)) for _ in range(3)] == [Join("id-1")] * 3
    a.now += 3600.0
    assert a.submit(key(1)) == Join("id-1"), "this process runs it"
    a.front.ended(a.now, key(1), ProcedureState.DONE)
    assert isinstance(a.submit(key(1)), Go)


def test_a_submission_that_came_to_nothing_is_not_joined() -> None:
    a = Fronts()
    a.submit(key(1))
    a.front.not_created(key(1))
    assert a.submit(key(1)) == Go(probe=False, begin=True)


def test_a_maker_that_never_says_how_it_ended_is_joined_for_a_bounded_time() -> None:
    a = Fronts()
    a.submit(key(1))
    a.now += 29.0
    assert a.submit(key(1)) == Join("")
    a.now += 2.0
    assert isinstance(a.submit(key(1)), Go)


def test_a_record_that_another_process_may_have_is_asked_about_again() -> None:
    a = Fronts()
    a.make(key(1))
    a.now += 0.4
    assert a.submit(key(1)) == Join(id_of(key(1)))
    a.now += 0.2
    assert isinstance(a.submit(key(1)), Go), "it may have ended there"
    assert a.submit(key(1)) == Join(""), "one question at a time"


def test_what_was_not_heard_of_for_a_minute_is_forgotten_and_what_runs_here_is_not() -> None:
    a = Fronts()
    for number in range(100):
        a.make(key(number), mine=number % 10 == 0)
    assert a.front.counts.live == 100
    a.now += 62.0
    for number in range(100, 200):
        a.make(key(number))
    assert a.front.counts.live == 110
    assert isinstance(a.submit(key(1)), Go)
    assert a.submit(key(10)) == Join(id_of(key(10)))


def test_live_keys_are_bounded_and_those_that_run_here_stay() -> None:
    register = Register(live_max=20)
    for number in range(100):
        register.making(0.0, key(number), None, is_probe=False)
        register.made(0.0, key(number), id_of(key(number)), mine=number < 10)
    assert len(register.live) == 20
    assert set(register.live) >= {key(number) for number in range(10)}


def test_a_key_that_failed_is_refused_with_the_first_cause_until_its_backoff_has_passed() -> None:
    a = Fronts()
    later = Fault(Kind.TRANSIENT, "timeout", "no answer")
    a.front.failing(a.now, key(1), "id-1", BAD, later, failures=2, since_s=50.0, until_s=20.0)
    answers = [refused(a.submit(key(1))) for _ in range(1000)]
    assert set(answers) == {answers[0]}, "the millionth is told what the first is"
    assert (answers[0].fault, answers[0].since_s, answers[0].retry_after_s) == (BAD, 50.0, 20.0)
    assert (answers[0].why, answers[0].id) == (Why.FAILING, "id-1")
    a.now += 19.9
    assert refused(a.submit(key(1))).why is Why.FAILING
    a.now += 0.2
    assert a.submit(key(1)) == Go(probe=True, begin=True)
    assert a.submit(key(1)) == Join(""), "one probe"
    assert isinstance(a.submit(key(2)), Go), "another key is not concerned"


def test_success_ends_the_memory_of_a_key_and_a_cancelled_probe_does_not() -> None:
    a = Fronts()
    a.dead(key(1), until_s=10.0)
    a.now += 10.0
    for state in (ProcedureState.CANCELLED, ProcedureState.EXPIRED):
        assert a.make(key(1), Submission.REVIVED).probe
        a.front.ended(a.now, key(1), state)
        assert a.front.counts.failing == 1
        a.now += 0.2
    assert a.make(key(1), Submission.REVIVED, mine=True).probe, "the next submission is the probe"
    a.front.ended(a.now, key(1), ProcedureState.DONE)
    assert a.front.counts.failing == 0
    assert a.submit(key(1)) == Go(probe=False, begin=True)


def test_a_probe_whose_runner_died_is_free_for_the_next_submission() -> None:
    """Its record is another process's; that is killed, and nobody tells us."""
    a = Fronts()
    a.dead(key(1), until_s=1.0)
    a.now += 1.0
    assert a.make(key(1), Submission.REVIVED).probe
    a.now += 0.6
    assert a.submit(key(1)) == Go(probe=False, begin=True), "the store knows whether it is live"
    a.front.created(a.now, key(1), "id-1", Submission.JOINED)
    a.now += 0.6
    assert a.submit(key(1)) == Go(probe=False, begin=True)
    before = a.front.counts.probes
    a.front.created(a.now, key(1), "id-1", Submission.REVIVED)
    assert a.front.counts.probes == before + 1, "it had died there, and this is another attempt"
    a.now += 61.0
    assert a.submit(key(1)) == Go(probe=True, begin=True), "long ago"


def test_what_the_store_made_as_new_is_not_failing_any_more() -> None:
    """Another process has cured the key."""
    a = Fronts()
    a.dead(key(1), until_s=1.0)
    a.now += 1.0
    a.make(key(1), Submission.CREATED)
    assert a.front.counts.failing == 0


def test_the_stores_answer_that_a_key_is_failing_is_remembered() -> None:
    a = Fronts()
    assert isinstance(a.submit(key(1)), Go)
    a.dead(key(1), DOWN, until_s=5.0)
    assert refused(a.submit(key(1))).fault == DOWN


def test_clear_ends_the_memory_of_one_key_of_a_kind_and_of_all() -> None:
    a = Fronts()
    keys = [key(number, kind) for kind in ("create", "drop") for number in range(3)]

    def failing_after(kind: str, name: str) -> set[KeyOf]:
        for of in keys:
            a.dead(of, until_s=1e6)
        a.front.cleared(kind, name)
        return {of for of in keys if a.front.explain(a.now, of) is not None}

    assert failing_after("create", "table-1") == set(keys) - {key(1)}
    assert failing_after("create", "") == {of for of in keys if of.kind == "drop"}
    assert failing_after("", "") == set()
    assert isinstance(a.submit(key(1)), Go)


def test_a_fixed_cause_ends_the_memory_of_the_keys_whose_last_fault_it_was() -> None:
    a = Fronts()
    a.dead(key(1), DOWN, until_s=1e6)
    a.dead(key(2), BAD, until_s=1e6)
    a.front.failing(a.now, key(3), "id-3", BAD, DOWN, failures=2, since_s=0.0, until_s=1e6)
    a.front.failing(a.now, key(4), "id-4", DOWN, BAD, failures=2, since_s=0.0, until_s=1e6)
    a.front.fixed(*DOWN.key)
    assert [a.front.explain(a.now, key(number)) is None for number in (1, 2, 3, 4)] == [True, False, True, False]


def test_a_joiner_puts_a_deadline_off_and_never_forward() -> None:
    a = Fronts()
    a.submit(key(1), 10.0)
    a.front.created(a.now, key(1), "id-1", Submission.CREATED)
    a.now += 0.1
    a.submit(key(1), 5.0)
    assert a.front.later(a.now) == {}
    a.submit(key(1), 20.0)
    assert a.front.later(a.now) == {"id-1": 21.0}, "with a second to spare, so that joiners cost one write a second"
    a.submit(key(1), 20.5)
    assert a.front.later(a.now) == {}
    a.submit(key(1), None)
    assert a.front.later(a.now) == {"id-1": None}
    a.submit(key(1), 1e9)
    assert a.front.later(a.now) == {}, "it has none any more"


def test_a_record_that_has_begun_has_no_deadline_to_put_off() -> None:
    a = Fronts()
    a.submit(key(1), 10.0)
    a.submit(key(1), 50.0)
    a.front.created(a.now, key(1), "id-1", Submission.CREATED, mine=True)
    a.submit(key(1), 500.0)
    assert a.front.later(a.now) == {}


def test_a_deadline_that_was_put_off_while_the_record_was_made_is_told_when_it_is_there() -> None:
    a = Fronts()
    a.submit(key(1), 10.0)
    a.submit(key(1), 50.0)
    assert a.front.later(a.now) == {}
    a.front.created(a.now, key(1), "id-1", Submission.CREATED)
    assert a.front.later(a.now) == {"id-1": 51.0}


def test_nothing_that_explain_says_is_counted_or_changes_anything() -> None:
    a = Fronts()
    a.dead(key(1), until_s=5.0)
    before = a.front.counts
    said = a.front.explain(a.now, key(1))
    assert said == a.submit(key(1))
    a.now += 6.0
    said = a.front.explain(a.now, key(1))
    assert said is not None
    assert said.why is Why.PROBE
    assert a.front.counts.refused == before.refused + 1
    assert a.submit(key(1)) == Go(probe=True, begin=True)


def test_five_thousand_keys_that_fail_each_for_its_own_reason_refuse_no_good_one() -> None:
    a = Fronts()
    good = KeyOf("create", "good")
    for number in range(5000):
        fault = Fault(Kind.PERMANENT, f"E{number}", "its own", source="metasrv")
        a.make(key(number), mine=True)
        assert a.front.attempt_failed(a.now, key(number), fault, STEP).counts
        a.dead(key(number), fault, until_s=1e6)
        if number % 250 == 0:
            assert a.make(good, mine=True) == Go(probe=False, begin=True)
            a.front.step_done(a.now, good, STEP)
            a.front.ended(a.now, good, ProcedureState.DONE)
        a.now += 0.01
    assert a.front.counts.failing == 5000
    assert {refused(a.submit(key(number))).fault.code for number in range(5000)} == {f"E{number}" for number in range(5000)}
    assert a.front.counts.refused == 5000, "none of which went to the store"
    assert a.front.counts.causes == 0
