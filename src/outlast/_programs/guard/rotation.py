"""Decides when a log file is rotated, which files are removed and when writing pauses, from sizes, ages and free space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from outlast._files.room import Levels

KEPT_BYTES_MIN: Final = 64 * 1024
"""A file smaller than this says too little about what just happened to be worth rotating for room."""
_PAUSE: Final = Levels(enter=2 * KEPT_BYTES_MIN, leave=4 * KEPT_BYTES_MIN)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the size, age and number of the files of one log. Sizes are bytes, ages seconds.

    `share` is the part of the disk that the log may use of what is *available to it*: what is free for this user plus
    what the log itself holds. So a log that is alone on the disk grows to its share and stays there, and gives way when
    others need the disk. Removing goes on until `leave` of that cap is reached, so that it does not remove one file
    with every line. Raises `ValueError` for limits that make no sense.
    """

    size_bytes_max: int = 64 * 1024 * 1024
    age_s_max: float = 86_400.0
    files_max: int = 10
    """Rotated files beside the one that is written."""
    share: float = 0.2
    leave: float = 0.8

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could be kept."""
        if self.size_bytes_max < 1:
            raise ValueError(f"a log file needs at least 1 byte, not {self.size_bytes_max}")
        if self.age_s_max <= 0:
            raise ValueError(f"the age of a log file must be above 0 s, not {self.age_s_max}")
        if self.files_max < 0:
            raise ValueError(f"there cannot be {self.files_max} rotated files; 0 keeps none")
        if not 0 < self.leave <= 1 or not 0 < self.share <= 1:
            raise ValueError(f"a share is above 0 and at most 1, not {self.share} (leave {self.leave})")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one log: the one that is written, and the rotated ones from the oldest to the newest."""

    current_bytes: int
    age_s: float
    rotated: tuple[tuple[str, int], ...]
    """(name, bytes)."""
    available_bytes: int
    """The bytes that this user may still write on the disk."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps to take now, in this order: remove, rotate, and write or pause."""

    rotate: bool
    remove: tuple[str, ...]
    pause: bool
    cap_bytes: int


def plan(files: Files, limits: Limits, *, paused: bool) -> Plan:
    """Decide what is due; `paused` is what the last plan said.

    The written file is rotated at its size or age, and earlier when it takes half of what the disk allows: then the latest
    lines outlive the removal of older ones. Writing pauses when the disk allows less than two files of `KEPT_BYTES_MIN`,
    and goes on when it allows twice that. The newest rotated file gives way to the disk only once the written one holds
    `KEPT_BYTES_MIN`: the last lines before a disk filled up are those that tell why.
    """
    own = files.current_bytes + sum(size for _, size in files.rotated)
    cap = int(limits.share * (max(0, files.available_bytes) + own))
    pause = _PAUSE.is_low(cap, was_low=paused)
    too_large = files.current_bytes >= min(limits.size_bytes_max, max(KEPT_BYTES_MIN, cap // 2))
    rotate = files.current_bytes > 0 and (too_large or files.age_s >= limits.age_s_max)
    count = len(files.rotated) + rotate
    remove: list[str] = []
    target = cap if own <= cap else int(cap * limits.leave)
    may_go = len(files.rotated) - (not rotate and files.current_bytes < KEPT_BYTES_MIN)
    for name, size in files.rotated:
        if count <= limits.files_max and (own <= target or len(remove) >= may_go):
            break
        remove.append(name)
        own -= size
        count -= 1
    return Plan(rotate, tuple(remove), pause, cap)
