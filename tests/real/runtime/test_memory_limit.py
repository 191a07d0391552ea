"""A process under a memory limit of the kernel's: a flood of large work never ends it, and page cache never shuts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outlast._runtime.admission.cgroup import Groups

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_BYTES = 256 * 2**20
HUNGRY = Path(__file__).with_name("hungry.py")

pytestmark = [pytest.mark.root, pytest.mark.skipif(sys.platform != "linux", reason="needs control groups")]


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


def hungry(*arguments: str | Path) -> tuple[int, dict[str, int], str]:
    """Run the service under the limit; return its exit code, what it counted, and what it said."""
    with group_of(LIMIT_BYTES) as group:
        inside = ["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
        program = [*inside, sys.executable, HUNGRY, *arguments]
        ended = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    return ended.returncode, json.loads(ended.stdout or "{}"), ended.stderr


@pytest.mark.parametrize("how", ["rush", "flood"])
def test_a_flood_of_large_work_never_ends_a_process_that_looks_at_its_memory(how: str) -> None:
    code, counts, said = hungry(how, "memory")
    assert code == 0, said
    assert counts["refused"] > 0
    assert counts["served"] >= 20
    assert counts["critical refused"] == 0
    assert not [line for line in said.splitlines() if " ERROR " in line or " CRITICAL " in line]


@pytest.mark.parametrize("how", ["rush", "flood"])
def test_the_same_flood_ends_one_that_does_not(how: str) -> None:
    code, _, said = hungry(how, "none")
    assert code == -signal.SIGKILL, said


def test_page_cache_alone_never_shuts_it(tmp_path: Path) -> None:
    code, counts, said = hungry("cache", "memory", tmp_path / "file")
    assert code == 0, said
    assert counts["refused"] == 0
    assert counts["served"] > 800
