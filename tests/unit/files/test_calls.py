"""The files of this machine by the port: the few calls that are more than one of `os`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from outlast.extend import LOCAL_FILES

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pipe_is_refused_without_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        LOCAL_FILES.open(tmp_path / "pipe", os.O_RDONLY)


def test_more_pieces_than_the_system_takes_are_a_short_write(tmp_path: Path) -> None:
    descriptor = LOCAL_FILES.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert LOCAL_FILES.write(descriptor, [b"ab"] * 3000) == 2048
    assert LOCAL_FILES.size(descriptor) == 2048
    LOCAL_FILES.close(descriptor)


def test_a_lock_is_of_one_descriptor_and_ends_with_it(tmp_path: Path) -> None:
    first, second = (LOCAL_FILES.open(tmp_path / "file", os.O_RDWR | os.O_CREAT) for _ in range(2))
    LOCAL_FILES.lock(first)
    with pytest.raises(BlockingIOError):
        LOCAL_FILES.lock(second)
    LOCAL_FILES.close(first)
    LOCAL_FILES.lock(second)
    LOCAL_FILES.close(second)
