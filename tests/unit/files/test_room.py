"""How much room a disk has, and when that is too little."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from outlast.extend import Levels, Room, room

if TYPE_CHECKING:
    from pathlib import Path


def disk(*, files: int) -> SimpleNamespace:
    """A disk of which root keeps a part: free is not available."""
    return SimpleNamespace(
        f_frsize=512,
        f_bsize=4096,
        f_blocks=100,
        f_bfree=20,
        f_bavail=10,
        f_files=files,
        f_ffree=7,
        f_favail=5 if files else 0,
    )


def test_available_is_counted_and_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: disk(files=100))
    assert room("/somewhere") == Room(5120, 5, 51_200, 100)


def test_a_disk_that_counts_no_inodes_is_not_out_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: disk(files=0))
    assert room("/somewhere").available_inodes is None


def test_a_real_disk_has_room(tmp_path: Path) -> None:
    assert room(tmp_path).available_bytes > 0
    with pytest.raises(FileNotFoundError):
        room(tmp_path / "missing")


def test_levels_come_in_pairs_and_do_not_flap() -> None:
    levels, low, seen = Levels(enter=10, leave=15), False, list[bool]()
    for available in (12, 10, 9, 12, 14, 15, 12, 10):
        low = levels.is_low(available, was_low=low)
        seen.append(low)
    assert seen == [False, False, True, True, True, False, False, False]


@pytest.mark.parametrize("levels", [(10, 10), (15, 10), (-1, 10)])
def test_levels_in_the_wrong_order_are_refused(levels: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="the level to leave at must be above that to enter at"):
        Levels(*levels)
