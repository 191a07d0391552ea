from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from outlast.testing import Episode, Script, Trouble
from outlast.testing._peers.scripted_faults import SURVIVABLE

if TYPE_CHECKING:
    from collections.abc import Callable

INFINITE = math.inf


def test_a_script_says_which_trouble_there_is_when() -> None:
    first, second = Episode(10, 20, Trouble.REFUSE), Episode(20, INFINITE, Trouble.HANG)
    script = Script(first, second)
    assert [script.at(now) for now in (0, 9.999, 10, 19.999, 20, 1e9)] == [None, None, first, first, second, second]
    assert Script(first).at(20) is None
    assert Script().at(0) is None


def test_a_healed_script_has_no_trouble_left() -> None:
    script = Script(Episode(0, 10, Trouble.REFUSE), Episode(20, 30, Trouble.REFUSE))
    script.heal()
    assert script.healed
    assert [script.at(now) for now in (5, 25)] == [None, None]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Episode(10, 10, Trouble.REFUSE),
        lambda: Episode(math.nan, 10, Trouble.REFUSE),
        lambda: Episode(-INFINITE, 10, Trouble.REFUSE),
        lambda: Episode(0, 10, Trouble.SLOW, slow_s=-1),
        lambda: Episode(0, 10, Trouble.SLOW, slow_s=INFINITE),
    ],
)
def test_an_episode_with_times_that_mean_nothing_is_refused(make: Callable[[], Episode]) -> None:
    with pytest.raises(ValueError, match=r"Episode\(.* needs start_s < end_s"):
        make()


def test_episodes_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Episode\(5, .*begins before the end of Episode\(0, "):
        Script(Episode(0, 10, Trouble.REFUSE), Episode(5, 15, Trouble.HANG))


def test_a_random_script_replays_alternates_and_ends_in_time() -> None:
    for seed in range(200):
        script = Script.random(random.Random(seed), 100.0, start_s=50.0)
        assert script.episodes == Script.random(random.Random(seed), 100.0, start_s=50.0).episodes
        assert all(50 <= episode.start_s < episode.end_s <= 150 for episode in script.episodes)
        assert all(0.4999 <= later.start_s - earlier.end_s <= 30.0001 for earlier, later in pairwise(script.episodes))
        assert all(episode.end_s - episode.start_s <= 30.0001 and 0.1 <= episode.slow_s <= 10 for episode in script.episodes)


def test_random_scripts_differ_and_meet_every_trouble_they_may_and_no_other() -> None:
    scripts = [Script.random(random.Random(seed), 100.0) for seed in range(200)]
    met = {episode.trouble for script in scripts for episode in script.episodes}
    assert met == set(SURVIVABLE)
    assert len({script.episodes for script in scripts}) > 190
    from_the_start = sum(script.at(0) is not None for script in scripts)
    assert 20 < from_the_start < 80
    only = Script.random(random.Random(1), 1000.0, troubles=[Trouble.FAIL], error=lambda: ValueError("mine"))
    assert {episode.trouble for episode in only.episodes} == {Trouble.FAIL}
    assert str(only.episodes[0].error()) == "mine"


@pytest.mark.parametrize("bounds_s", [(0, 1), (2, 1), (1, INFINITE)])
def test_lengths_that_mean_nothing_are_refused(bounds_s: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="the shorter first"):
        Script.random(random.Random(1), 10, well_s=bounds_s)


def test_a_random_script_can_be_pasted_into_a_test() -> None:
    script = Script.random(random.Random(5), 300.0)
    pasted = eval(repr(script))  # noqa: S307 - our own text
    assert [repr(episode) for episode in pasted.episodes] == [repr(episode) for episode in script.episodes]
    assert repr(Episode(0, 10, Trouble.SLOW, slow_s=2)) == "Episode(0, 10, Trouble.SLOW, slow_s=2)"
    assert "error=<" in repr(Episode(0, 10, Trouble.FAIL, error=lambda: ValueError("mine")))
