"""A control group with a memory limit, for the tests of processes that have to live in one."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outlast._runtime.admission.cgroup import Groups

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_BYTES = 256 * 2**20


def inside(group: Path, program: list[str | Path]) -> list[str | Path]:
    """Return the command that runs a program in a group, from its first instruction on."""
    return ["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *program]


@contextmanager
def group_of(limit_bytes: int) -> Iterator[Path]:
    """A group with that limit, where the kernel lets us make one."""
    groups = Groups(Path("/proc"))
    if groups.usage() is None or groups._found is None:
        pytest.skip("the kernel has no control groups")
    group = groups._found[1][-1] / f"outlast-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"no control group can be made: {exc}")
    try:
        limits = [group / name for name in ("memory.limit_in_bytes", "memory.max") if (group / name).exists()]
        if not limits:
            pytest.skip(f"{group} does not account for memory: the level above hands that to nobody")
        limits[0].write_text(str(limit_bytes))
        yield group
    finally:
        removed(group)


def removed(group: Path) -> None:
    """Remove it: the kernel takes a moment after the last process has ended."""
    for _ in range(100):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)
    group.rmdir()
