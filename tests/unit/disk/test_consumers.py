"""The search for what fills a disk: within a budget, in sizes that the disk counts."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from outlast.disk._consumers import Budget, consumers

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

KIB = 1024
UNBOUNDED = 50_000


def put(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def search(root: Path, entries: int = UNBOUNDED, used: int = 1 << 20) -> str:
    return consumers(str(root), used, Budget(entries, lambda: False))


def named(told: str) -> list[str]:
    """The paths that are named, in their order."""
    return [part.rsplit(" ", 2)[0] for part in told.partition(": ")[2].split(", ")] if ": " in told else []


def test_the_biggest_are_named_as_closely_as_possible(tmp_path: Path) -> None:
    put(tmp_path / "uploads/2026/11/video", 400 * KIB)
    put(tmp_path / "uploads/2026/10/photo", 4 * KIB)
    for number in range(4):
        put(tmp_path / f"streams/{number}/segment", 40 * KIB)
    put(tmp_path / "core", 100 * KIB)
    put(tmp_path / "small", 4 * KIB)
    told = search(tmp_path)
    assert named(told) == ["uploads/2026/11/video", "streams/", "core"]
    assert f"were found in {tmp_path}" in told
    assert "the rest lies elsewhere" in told


def test_what_lies_elsewhere_is_not_told_where_it_is_little(tmp_path: Path) -> None:
    put(tmp_path / "file", 400 * KIB)
    assert "the rest lies elsewhere" not in search(tmp_path, used=420 * KIB)
    assert "the rest lies elsewhere" in search(tmp_path, used=500 * KIB)


def test_holes_links_and_second_names_take_no_room(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    put(outside / "huge", 900 * KIB)
    put(inside / "file", 100 * KIB)
    os.link(inside / "file", inside / "again")
    (inside / "link").symlink_to(outside)
    with (inside / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    told = search(inside)
    size = float(told.split(" KiB", 1)[0])
    assert 100 <= size < 140
    assert len(named(told)) <= 3


def test_a_budget_that_runs_out_has_seen_the_upper_folders_and_says_so(tmp_path: Path) -> None:
    put(tmp_path / "big/file", 300 * KIB)
    for number in range(200):
        put(tmp_path / f"deep/below/{number}", 1)
    told = search(tmp_path, entries=20)
    assert "found in" in told
    assert "in time" in told
    assert "big/file" in named(told)
    assert search(tmp_path, entries=0).endswith("in time")


def test_the_search_ends_when_its_time_is_over(tmp_path: Path) -> None:
    for number in range(20):
        put(tmp_path / f"{number}", KIB)
    asked: list[int] = []

    def is_over() -> bool:
        asked.append(1)
        return len(asked) > 5

    told = consumers(str(tmp_path), 1 << 20, Budget(UNBOUNDED, is_over))
    assert len(asked) == 6
    assert "in time" in told


def test_what_cannot_be_read_is_nothing_to_say(tmp_path: Path) -> None:
    assert search(tmp_path / "missing") == ""


def test_a_folder_that_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "closed/file", 900 * KIB)
    put(tmp_path / "open/file", 100 * KIB)
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(errno.EACCES, "not ours")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    told = search(tmp_path)
    assert "in time" in told
    assert named(told)[0] == "open/file"


def test_names_are_cut_and_stay_on_one_line(tmp_path: Path) -> None:
    put(tmp_path / ("a\nb" + "c" * 200), 100 * KIB)
    told = search(tmp_path)
    assert "\n" not in told
    assert len(told) < 400


def test_a_disk_that_says_nonsense_within_a_quota_is_taken_at_no_less_than_was_found(tmp_path: Path) -> None:
    put(tmp_path / "file", 400 * KIB)
    told = search(tmp_path, used=-(100 << 30))
    assert told.count("400.0 KiB") + told.count("404.0 KiB") == 3
