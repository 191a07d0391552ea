"""A process under a memory limit of the kernel's: a flood of large work never ends it, and page cache never shuts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from memory_group import LIMIT_BYTES, group_of, inside

HUNGRY = Path(__file__).with_name("hungry.py")

pytestmark = [pytest.mark.root, pytest.mark.skipif(sys.platform != "linux", reason="needs control groups")]


def hungry(*arguments: str | Path) -> tuple[int, dict[str, int], str]:
    """Run the service under the limit; return its exit code, what it counted, and what it said."""
    with group_of(LIMIT_BYTES) as group:
        program = inside(group, [sys.executable, HUNGRY, *arguments])
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
