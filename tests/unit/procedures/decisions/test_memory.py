"""The memory of failure: its bounds, and the backoff of a key."""

from __future__ import annotations

import random
import tracemalloc
from collections import OrderedDict

import pytest
from front_cases import BAD, DOWN, Fronts, id_of, key, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast import Fault, Kind
from outlast.procedures._decisions.memory import BYTES_MAX, Failing, Memory, wait_s
from outlast.procedures._model import KeyOf

PASSING = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)
LASTING = (10.0, 30.0, 90.0, 270.0, 810.0, 900.0, 900.0)
BUGS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0)
TABLE = {
    Kind.TRANSIENT: PASSING,
    Kind.CONTENDED: PASSING,
    Kind.EXHAUSTED: PASSING,
    Kind.OVERLOADED: PASSING,
    Kind.STOPPING: PASSING,
    Kind.BUG: BUGS,
    Kind.REJECTED: LASTING,
    Kind.PERMANENT: LASTING,
    Kind.FATAL: LASTING,
}


def test_every_kind_has_its_backoff() -> None:
    assert set(TABLE) == set(Kind)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_a_key_waits_longer_after_each_failure_by_half_at_random(kind: Kind) -> None:
    rng = random.Random(3)
    fault = Fault(kind, "x", "")
    for failures, expected in enumerate(TABLE[kind], start=1):
        waits = [wait_s(fault, failures, rng) for _ in range(50)]
        assert expected / 2 <= min(waits) < max(waits) <= expected
        assert max(waits) - min(waits) > 0.3 * expected, "spread, at the cap too"


def test_the_time_that_a_peer_asked_for_is_the_least_and_keys_do_not_come_at_it_together() -> None:
    rng = random.Random(3)
    waits = [wait_s(Fault(Kind.OVERLOADED, "429", "", retry_after_s=120.0), 1, rng) for _ in range(100)]
    assert min(waits) >= 120.0
    assert 160.0 < max(waits) <= 180.0
    assert wait_s(Fault(Kind.OVERLOADED, "429", "", retry_after_s=1e9), 1, rng) <= 5_400.0, "bounded"


def test_what_the_oldest_key_gives_way_to_is_counted() -> None:
    a = Fronts(keys_max=3)
    for number in range(5):
        a.dead(key(number), until_s=100.0)
    a.dead(key(2), until_s=100.0)
    a.dead(key(5), until_s=100.0)
    assert [a.front.explain(a.now, key(number)) is not None for number in range(6)] == [False, False, True, False, True, True]
    assert (a.front.counts.failing, a.front.counts.forgotten) == (3, 3)


def test_a_memory_without_room_is_refused() -> None:
    for bounds in ({"keys_max": 0}, {"bytes_max": 0}):
        with pytest.raises(ValueError, match="room for at least 1 key"):
            Memory(**bounds)


def distinct(number: int, length: int) -> tuple[KeyOf, Failing]:
    """An entry that shares no text with another."""
    first = Fault(Kind.REJECTED, f"code {number}", f"{number}".ljust(length, "r"), f"source {number}", hint=f"hint {number}")
    last = Fault(Kind.REJECTED, f"code {-number}", f"{-number}".ljust(length, "r"), f"source {-number}")
    return KeyOf(f"kind {number}", f"{number}".ljust(length, "k")), Failing(
        f"{number:032x}", first, last, 1, 0.5 + number, 2.5 + number
    )


@pytest.mark.parametrize("length", [0, 500], ids=["short", "long"])
def test_what_the_memory_says_it_takes_is_no_less_than_what_it_takes(length: int) -> None:
    memory = Memory(keys_max=4000)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(4000):
        memory.put(*distinct(number, length))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 * memory.size_bytes < after - before <= memory.size_bytes


def test_long_keys_are_bounded_in_bytes_before_their_number() -> None:
    memory = Memory(keys_max=1000, bytes_max=100_000)
    for number in range(1000):
        memory.put(*distinct(number, 512))
    assert memory.size_bytes <= 100_000
    assert 20 < len(memory.entries) < 100
    assert memory.forgotten == 1000 - len(memory.entries)
    huge = KeyOf("create", "x" * 200_000)
    memory.put(huge, Failing("id", BAD, BAD, 1, 0.0, 1.0))
    assert list(memory.entries) == [huge], "the newest is always remembered"


def a_million_failing_keys(keys: int, keys_max: int, bytes_max: int = BYTES_MAX) -> None:
    """Each is a fresh key with a reason of its own; every hundredth is asked for again at once."""
    a = Fronts(keys_max=keys_max, bytes_max=bytes_max)
    for number in range(keys):
        fault = Fault(Kind.REJECTED, "42P07", f"relation {number} is there already", source="metasrv")
        a.dead(key(number), fault, until_s=1e6)
        if number % 100 == 0:
            assert refused(a.submit(key(number))).fault == fault
    counts = a.front.counts
    assert counts.failing + counts.forgotten == keys, "exact"
    assert counts.failing <= keys_max
    assert counts.failing_bytes <= bytes_max
    assert counts.refused == keys // 100
    remembered = [a.front.explain(a.now, key(number)) is not None for number in range(keys - counts.failing - 1, keys)]
    assert remembered == [False] + [True] * counts.failing, "the oldest were forgotten"


def test_very_many_failing_keys_take_bounded_memory() -> None:
    a_million_failing_keys(keys=5_000, keys_max=700)


@pytest.mark.long
def test_a_million_failing_keys_take_bounded_memory() -> None:
    tracemalloc.start()
    a_million_failing_keys(keys=1_000_000, keys_max=50_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < BYTES_MAX + (8 << 20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["put", "forget", "where"]), st.integers(0, 12), st.integers(0, 3)), max_size=60))
def test_it_holds_what_a_simple_list_would(acts: list[tuple[str, int, int]]) -> None:
    memory, model, forgotten = Memory(keys_max=5), OrderedDict[KeyOf, str](), 0
    faults = [DOWN, BAD, Fault(Kind.BUG, "x", ""), Fault(Kind.FATAL, "y", "")]
    for act, number, which in acts:
        of = key(number)
        if act == "put":
            memory.put(of, Failing(id_of(of), faults[which], faults[which], 1, 0.0, 1.0))
            model.pop(of, None)
            model[of] = faults[which].code
            if len(model) > 5:
                model.popitem(last=False)
                forgotten += 1
        elif act == "forget":
            assert memory.forget(of) == (model.pop(of, None) is not None)
        else:
            gone = memory.forget_where(lambda _, entry, code=faults[which].code: entry.last.code == code)
            assert gone == [each for each, code in model.items() if code == faults[which].code]
            for each in gone:
                del model[each]
        assert [(each, entry.last.code) for each, entry in memory.entries.items()] == list(model.items())
        assert memory.forgotten == forgotten
        assert memory.size_bytes == sum(entry.size_bytes for entry in memory.entries.values())
