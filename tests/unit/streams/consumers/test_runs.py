"""Sets of positions as runs, against a plain set."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.streams._consumers._runs import Run, RunSet, runs_of

RUNS = st.builds(lambda first, length: Run(first, first + length), st.integers(0, 30), st.integers(1, 8))


def test_neighbours_are_one_run_and_a_position_twice_counts_once() -> None:
    assert runs_of([3, 1, 2, 2, 7]) == [Run(1, 4), Run(7, 8)]
    assert runs_of([]) == []


@settings(max_examples=150)
@given(st.lists(st.tuples(st.booleans(), RUNS), max_size=12), RUNS)
def test_it_is_the_set_of_its_positions(changes: list[tuple[bool, Run]], asked: Run) -> None:
    runs, model = RunSet(), set[int]()
    for is_added, run in changes:
        (runs.add if is_added else runs.discard)(run)
        (model.update if is_added else model.difference_update)(range(*run))
        assert list(runs) == runs_of(model), "sorted, and no two that touch"
        assert (runs.size, len(runs)) == (len(model), len(runs_of(model)))
    assert [position for position in range(40) if position in runs] == sorted(model)
    assert runs.within(asked) == runs_of(model & set(range(*asked)))
