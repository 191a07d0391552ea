"""The simulator's own tests, and its short run. `python -m tests.sim` runs it longer; docs/simulator.md tells how to replay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.sim.mutants import MUTANTS, NEON  # noqa: E402 - `tests` is found from the root
from tests.sim.run import run_parallel, run_seeds, told  # noqa: E402
from tests.sim.schedule import run_schedule  # noqa: E402
from tests.sim.shape import draw  # noqa: E402

FOUND_WITHIN = 1000
SAME = range(40)


@pytest.mark.timeout(1200)
def test_no_schedule_breaks_an_invariant(schedules: int) -> None:
    result = run_parallel(0, schedules)
    if result.failures:
        pytest.fail(told(result.failures[0], None), pytrace=False)
    assert result.schedules == schedules
    # What never comes about shows nothing.
    assert min(result.exit_codes.get(code, 0) for code in ("0", "74", "75")) > schedules // 50


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", [pytest.param(name, id=f"{name} (Neon)" if name in NEON else name) for name in MUTANTS])
def test_a_planted_defect_is_found(mutant: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_seeds(0, FOUND_WITHIN, mutant)
    assert result.failures, f"{mutant} was not found in {FOUND_WITHIN} schedules"
    with capsys.disabled():
        print(f"\n{mutant}: found after {result.schedules} schedules: {result.failures[0].violations[0]}")  # noqa: T201


def test_the_same_seed_gives_the_same_trace() -> None:
    once = [run_schedule(seed) for seed in SAME]
    # In another order, and after other seeds.
    again = {seed: run_schedule(seed) for seed in reversed(SAME)}
    assert [outcome.digest for outcome in once] == [again[seed].digest for seed in SAME]
    assert len({outcome.digest for outcome in once}) == len(SAME)
    assert sum(outcome.events for outcome in once) > 10 * len(SAME)


def test_the_same_seed_gives_the_same_trace_in_another_process() -> None:
    code = f"from tests.sim.schedule import run_schedule\nfor seed in range({len(SAME)}): print(run_schedule(seed).digest)"
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    traces = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1] == [run_schedule(seed).digest for seed in SAME]


def test_a_failure_says_how_to_replay_it() -> None:
    failure = run_seeds(0, FOUND_WITHIN, NEON[0]).failures[0]
    text = told(failure, NEON[0])
    assert f"python3 -m tests.sim --seed {failure.seed} --schedules 1 --mutant {NEON[0]}" in text
    assert failure.violations[0] in text
    assert run_seeds(failure.seed, 1, NEON[0]).failures == [failure]
    assert not run_seeds(failure.seed, 1).failures


def test_shapes_are_small_on_average_with_a_heavy_tail() -> None:
    sizes = [len(draw(seed).root.all()) for seed in range(500)]
    assert sum(sizes) / len(sizes) < 6
    assert max(sizes) > 20
    assert any(draw(seed).liveness for seed in range(50))
