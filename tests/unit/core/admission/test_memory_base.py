"""Work that announces its size and takes its memory when it likes: never more than there is, and what is taken counts once."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from outlast._core.admission.memory import LARGE_BYTES, Memory, MemoryState

MIB = 2**20
LIMIT = 256 * MIB
BASE = 40 * MIB


@dataclass
class Work:
    size: int
    takes_at: int
    ends_at: int


class Process:
    """A process whose admitted work takes its memory some samples after it came in, and ends some samples after that."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.state = MemoryState(Memory())
        self.work: list[Work] = []
        self.now = 0
        self.base = BASE
        self.refused = 0

    @property
    def used(self) -> int:
        return self.base + sum(work.size for work in self.work if work.takes_at <= self.now)

    def offer(self, size: int, late_max: int, lasts_max: int) -> None:
        if self.state.level_with(size) > 1:
            self.refused += 1
            return
        self.state.reserve(size)
        takes_at = self.now + self.rng.randint(0, late_max)
        self.work.append(Work(size, takes_at, takes_at + self.rng.randint(1, lasts_max)))

    def step(self) -> None:
        self.now += 1
        for work in [work for work in self.work if work.ends_at <= self.now]:
            self.work.remove(work)
            self.state.unreserve(work.size)
        assert self.used <= LIMIT, "the kernel ends it"
        self.state.sample(self.now, self.used, LIMIT)


@pytest.mark.parametrize("late_max", [0, 1, 3, 40, 1000])
def test_a_flood_that_takes_its_memory_late_never_takes_more_than_there_is(late_max: int) -> None:
    process = Process(late_max)
    process.step()
    for _ in range(600):
        for _ in range(30):
            process.offer(process.rng.choice([MIB, 4 * MIB, 30 * MIB]), late_max, 8)
        process.step()
    assert process.refused > 10_000


def test_memory_that_is_taken_counts_once_however_long_it_is_held() -> None:
    process = Process(7)
    process.step()
    for _ in range(500):
        # Seven tenths of the limit in use in all, which is no reason to refuse anybody anything.
        for _ in range(35 - len(process.work)):
            process.offer(4 * MIB, 1, 30)
        process.step()
        assert process.state.level == 0
    assert process.refused == 0


def test_what_the_process_no_longer_needs_is_room_once_nothing_is_under_way() -> None:
    process = Process(7)
    process.base = 200 * MIB
    process.step()
    process.base = BASE
    process.step()
    assert process.state.counted_bytes == BASE
    process.offer(140 * MIB, 0, 1)
    assert process.refused == 0
    assert process.state.counted_bytes == 180 * MIB
    process.step()
    process.step()
    assert process.state.reserved_bytes == 0
    assert process.state.counted_bytes == BASE


def test_what_is_given_back_before_it_was_used_counts_no_longer() -> None:
    process = Process(7)
    process.step()
    process.state.reserve(100 * MIB)
    assert process.state.counted_bytes == BASE + 100 * MIB
    process.state.unreserve(100 * MIB)
    assert process.state.counted_bytes == BASE


def test_a_reading_is_taken_as_it_comes_from_the_meter_which_knows_whose_bytes_they_are() -> None:
    state = MemoryState(Memory(bytes_max=64 * MIB))
    state.sample(0.0, 100 * MIB, LIMIT)
    assert (state.known, state.level) == (True, 0), "100 MiB are the group's, and bytes_max is the process's"


def test_what_is_announced_and_never_comes_keeps_out_its_like_alone() -> None:
    process = Process(7)
    process.step()
    for _ in range(100):
        process.offer(10 * MIB, 10**6, 1)
    process.step()
    assert 100 * MIB < process.state.reserved_bytes < 150 * MIB
    assert process.state.level_with(10 * MIB) == 2
    assert [process.state.level_with(size) for size in (0, 1000, LARGE_BYTES - 1)] == [0, 0, 0]
    assert process.state.level == 0


def test_work_that_is_larger_than_all_that_may_be_announced_can_never_come_in() -> None:
    state = MemoryState(Memory())
    assert state.can_ever_hold(1e12), "the limit is not known yet"
    state.sample(0.0, 0, 100 * MIB)
    assert state.can_ever_hold(67 * MIB)
    assert state.level_with(67 * MIB) == 0
    assert not state.can_ever_hold(68 * MIB)
    state.sample(0.0, 60 * MIB, 100 * MIB)
    assert state.level_with(67 * MIB) == 2
    assert state.can_ever_hold(67 * MIB), "it may come in when others have ended"
