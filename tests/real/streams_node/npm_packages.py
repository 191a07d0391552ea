"""Programs of other people in JavaScript: the suite of the protocol and its client, in the versions that `npm/` pins."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PINS = Path(__file__).parent / "npm"
KEPT = Path(__file__).parents[3] / ".venvs"
"""Where what was installed is kept: git ignores it."""
NODE_MIN = 20
INSTALL_S_MAX = 120.0
SUITE_S_MAX = 300.0
VITEST = "node_modules/vitest/vitest.mjs"
FORKS = "Fork - "
RESERVED = "Reserved subscription APIs"


@functools.cache
def packages() -> Path:
    """Return the folder with the packages and the files of `npm/`; skip, with the reason, where they cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(f"the suite needs Node.js {NODE_MIN} or later and npm, and there is {'no npm' if node else 'no node'}")
    said = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    version = re.match(r"v(\d+)\.", said)
    if version is None or int(version[1]) < NODE_MIN:
        pytest.skip(f"the suite needs Node.js {NODE_MIN} or later, and this one is {said}")
    files = sorted(PINS.iterdir())
    digest = hashlib.sha256(b"\0".join(each.name.encode() + b"\0" + each.read_bytes() for each in files)).hexdigest()[:12]
    place = KEPT / f"npm-{digest}"
    if not place.exists():
        install(npm, files, place)
    return place


def install(npm: str, files: Iterable[Path], place: Path) -> None:
    """Install what the lock file names, whole or not at all: others may do the same at the same time."""
    KEPT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT, prefix="npm-") as name:
        made = Path(name) / "made"
        made.mkdir()
        for each in files:
            shutil.copy(each, made)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=made, check=False, capture_output=True, text=True, timeout=INSTALL_S_MAX)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install the suite within {INSTALL_S_MAX:g} s")
        if done.returncode:
            pytest.skip(f"npm could not install the suite: {' '.join(done.stderr.split())[:300]}")
        if not place.exists():
            try:
                made.rename(place)
            except OSError:
                assert place.exists(), f"{place} could not be made"


def settings(url: str) -> dict[str, str]:
    """Return the environment of a script that asks the server at `url`."""
    return {**os.environ, "NO_COLOR": "1", "CI": "1", "STREAMS_URL": url}


def run_script(url: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the folder against the server at `url`, to its end."""
    command = ["node", script, *arguments]
    return subprocess.run(
        command, cwd=packages(), env=settings(url), check=False, capture_output=True, text=True, timeout=SUITE_S_MAX
    )


@contextlib.contextmanager
def begun(url: str) -> Iterator[None]:
    """Let the suite run while the block does, and end it wherever it is then."""
    command = ["node", VITEST, "run"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=packages(), env=settings(url), stdout=quiet, stderr=quiet, start_new_session=True
    ) as process:
        try:
            yield
        finally:
            # It has workers, which are no children of ours.
            os.killpg(process.pid, signal.SIGKILL)


@dataclass
class Suite:
    """What came of one run of the suite."""

    core: Counter[str] = field(default_factory=Counter)
    forks: Counter[str] = field(default_factory=Counter)
    reserved: Counter[str] = field(default_factory=Counter)
    """How many tests ended how: those of the core, of forks, and of what the protocol reserves, which nobody runs by default."""
    failed: list[str] = field(default_factory=list)

    @classmethod
    def run(cls, url: str) -> Suite:
        """Run the suite against the server at `url`."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            done = run_script(url, VITEST, "run", "--reporter=json", f"--outputFile={report}")
            assert report.exists(), f"vitest wrote no report: {done.stderr[-2000:]}"
            return cls.of(json.loads(report.read_bytes()))

    @classmethod
    def of(cls, report: dict[str, Any]) -> Suite:
        """Read vitest's report."""
        suite = cls()
        for file in report["testResults"]:
            # A file that cannot be loaded has a message, and no test.
            suite.failed += [file["message"]] if file["message"] else []
            for test in file["assertionResults"]:
                group = test["ancestorTitles"][0]
                counts = suite.forks if group.startswith(FORKS) else suite.reserved if group == RESERVED else suite.core
                counts[test["status"]] += 1
                if test["status"] == "failed":
                    suite.failed.append(f"{test['fullName']}: {'; '.join(map(in_short, test['failureMessages']))}")
        return suite


def in_short(message: str) -> str:
    """Return a message without its stack, but with the line of the suite that raised it."""
    head, _, stack = message.partition("\n    at ")
    line = re.search(r"[^/]+\.js:\d+", stack)
    return f"{head} ({line[0]})" if line else head
