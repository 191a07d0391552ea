"""Probes of failing keys: ten a second in all, fair by key, and no place is lost or kept without end."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from front_cases import Fronts, key
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.procedures._decisions.front import Go
from outlast.procedures._decisions.probes import KEPT_S, TOLD_S_MAX, Probes


def test_a_key_alone_is_granted_at_once() -> None:
    assert Probes().asked(5.0, "a") == 0.0


def test_a_probe_needs_a_rate_and_a_place() -> None:
    for bounds in ({"per_s": 0}, {"line_max": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            Probes(**bounds)


def drive(intervals: dict[str, float], seconds: float) -> dict[str, list[float]]:
    """Ask for each key at its own intervals; return the times at which each was granted. A granted key fails and asks again."""
    probes, granted = Probes(), {name: list[float]() for name in intervals}
    rng = random.Random(11)
    due = {name: rng.uniform(0, interval) for name, interval in intervals.items()}
    while (name := min(due, key=lambda each: due[each])) and (now := due[name]) < seconds:
        due[name] += intervals[name]
        if probes.asked(now, name) == 0.0:
            granted[name].append(now)
    return granted


def at_most_ten_a_second(times: list[float]) -> bool:
    times = sorted(times)
    return all(later - earlier >= 1.0 for earlier, later in zip(times, times[10:], strict=False))


def test_a_key_that_is_asked_for_a_thousand_times_as_often_is_granted_as_often() -> None:
    """Twenty greedy keys and twenty patient ones: none is pushed aside."""
    names = {f"greedy {number}": 0.02 for number in range(20)} | {f"patient {number}": 5.0 for number in range(20)}
    granted = drive(names, 120.0)
    assert at_most_ten_a_second([at for times in granted.values() for at in times])
    counts = {name: len(times) for name, times in granted.items()}
    patient = [count for name, count in counts.items() if name.startswith("patient")]
    assert min(patient) >= 11, "of 12 at most: it asks 24 times, once for a place and once for its turn"
    greedy = [count for name, count in counts.items() if name.startswith("greedy")]
    assert max(greedy) <= min(greedy) + 2, counts


def test_nobody_is_passed_over_who_asked_before() -> None:
    probes, line = Probes(), [f"key {number}" for number in range(100)]
    served = [name for name in line if probes.asked(0.0, name) == 0.0]
    assert served == line[:9], "as many turns as nobody waited for in a second"
    now = 0.0
    while len(served) < 100:
        now += 0.01
        # In another order at each time.
        line.reverse()
        served += [name for name in line if name not in served and probes.asked(now, name) == 0.0]
    places = [int(name.split()[1]) for name in served]
    assert max(abs(place - number) for number, place in enumerate(places)) <= 10, "only those of one second change places"


def test_at_the_rate_that_turns_come_the_line_is_served() -> None:
    granted = drive({f"key {number}": 0.5 for number in range(100)}, 30.0)
    total = sum(map(len, granted.values()))
    assert 0.75 * 10 * 30 <= total <= 10 * 30
    assert all(granted.values()), "each of the hundred"


def test_a_key_for_which_nobody_asks_any_more_holds_up_nobody() -> None:
    probes = Probes()
    for number in range(1000):
        probes.asked(0.0, f"gone {number}")
    now = KEPT_S + 0.5
    assert probes.asked(now, "here") == 0.0
    assert len(probes) <= 10, "their places are free"


def test_whoever_comes_when_it_was_told_to_is_served_soon() -> None:
    probes, told = Probes(), dict[str, float]()
    for number in range(200):
        told[f"key {number}"] = probes.asked(0.0, f"key {number}")
    asked, served = Counter[str](), set[str]()
    while len(served) < 200:
        name = min(told, key=lambda each: told[each])
        at = told.pop(name)
        asked[name] += 1
        wait = probes.asked(at, name)
        if wait:
            told[name] = at + wait
        else:
            served.add(name)
    assert max(asked.values()) <= 4, asked.most_common(3)


def test_a_full_line_tells_newcomers_to_come_later_and_makes_room_of_the_gone() -> None:
    probes = Probes(line_max=5)
    for number in range(20):
        probes.asked(0.0, f"key {number}")
    assert len(probes) <= 5
    assert probes.asked(0.1, "new") == TOLD_S_MAX
    assert probes.asked(KEPT_S + 1.0, "new") == 0.0


def test_a_key_that_is_no_longer_failing_has_no_place() -> None:
    a = Fronts()
    for number in range(30):
        a.dead(key(number), until_s=1.0)
    a.now += 2.0
    answers = [a.submit(key(number)) for number in range(30)]
    assert [isinstance(answer, Go) for answer in answers] == [True] * 9 + [False] * 21, "the others have places in the line"
    for number in range(9, 30):
        a.front.cleared("create", f"table-{number}")
    assert all(isinstance(a.submit(key(number)), Go) for number in range(9, 30))
    assert len(a.front._probes) == 0
    a.dead(key(1), until_s=1.0)
    a.now += 1.0
    assert isinstance(a.submit(key(1)), Go)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.floats(0.0, 0.7), st.booleans()), max_size=150), st.integers(1, 12))
def test_there_are_never_more_than_the_rate_in_any_second(asks: list[tuple[int, float, bool]], per_s: int) -> None:
    probes, times, now = Probes(per_s), list[float](), 0.0
    for number, wait, leaves in asks:
        now += wait
        if leaves:
            probes.leave(number)
        elif (told := probes.asked(now, number)) == 0.0:
            times.append(now)
        else:
            assert 0.0 < told <= TOLD_S_MAX
    assert all(later - earlier >= 1.0 for earlier, later in zip(times, times[per_s:], strict=False))
    assert probes.granted == len(times)
