"""Simulations of which a seed decides everything: the command that runs many, and the search for the first that fails."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest

from planting import planted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class Seeded(Protocol):
    """What came of one seed."""

    @property
    def violation(self) -> object: ...

    @property
    def counts(self) -> Mapping[str, int]: ...

    @property
    def trace(self) -> Sequence[str]: ...


S = TypeVar("S", bound=Seeded)


def first_failure(run_seed: Callable[[int], S], within: int) -> S:
    """The outcome of the first seed that breaks a promise."""
    for seed in range(within):
        if (outcome := run_seed(seed)).violation:
            return outcome
    pytest.fail(f"not found within {within} seeds")


def counted(run_seed: Callable[[int], Seeded], replay_command: Callable[[int], str], seeds: Iterable[int]) -> Counter[str]:
    """What happened in all of these seeds, none of which breaks a promise."""
    counts = Counter[str]()
    for seed in seeds:
        outcome = run_seed(seed)
        assert not outcome.violation, f"{outcome.violation}; replay it: {replay_command(seed)}"
        counts.update(outcome.counts)
    return counts


def command(
    arguments: list[str],
    *,
    module: str,
    description: str,
    mutants: Mapping[str, Any],
    run_seed: Callable[[int], Seeded],
    replay_command: Callable[[int, str | None], str],
) -> int:
    """The command `python -m module`: exit code 1 if a promise was broken. A single schedule prints all that happened in it."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--schedules", type=int, default=1000, help="how many seeds")
    parser.add_argument("--mutant", choices=sorted(mutants), help="plant this defect, and see how soon it is found")
    chosen = parser.parse_args(arguments)
    counts = Counter[str]()
    with planted(mutants, chosen.mutant):
        for seed in range(chosen.seed, chosen.seed + chosen.schedules):
            outcome = run_seed(seed)
            counts.update(outcome.counts)
            if outcome.violation or chosen.schedules == 1:
                print("\n".join(outcome.trace[-40:]))  # noqa: T201 - a command
            if outcome.violation:
                print(f"seed {seed}: {outcome.violation}\nreplay: {replay_command(seed, chosen.mutant)}")  # noqa: T201 - a command
                return 1
    print(f"{chosen.schedules} schedules from seed {chosen.seed}, no promise broken: {dict(counts)}")  # noqa: T201 - a command
    return 0
