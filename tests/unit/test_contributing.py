"""CONTRIBUTING.md: its steps for a new system are followed in a copy, and lead to a system that passes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
REPLACE = re.compile(r"In `([^`]+)` replace `([^`]+)` by `([^`]+)`")
FILE = re.compile(r"^ *`([^`]+)`:\n\n( *)```\w+\n(.*?)\n\2```$", re.MULTILINE | re.DOTALL)
SYSTEM = PAGE.split("## A new system\n", 1)[1].split("\n## ", 1)[0]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after all steps."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "dev_picture.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "unit" / "public_names", copy / "tests" / "unit" / "public_names")
    shutil.copy(ROOT / "tests" / "conftest.py", copy / "tests")
    for name in ("test_doors.py", "test_style.py", "test_words.py"):
        shutil.copy(ROOT / "tests" / "unit" / name, copy / "tests" / "unit")
    (copy / "docs").mkdir()
    for name, old, new in REPLACE.findall(SYSTEM):
        text = (copy / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times, and CONTRIBUTING.md has it replaced"
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    for name, _, text in FILE.findall(SYSTEM):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(textwrap.dedent(text).rstrip() + "\n", encoding="utf-8")
    return copy


def run(copy: Path, *command: str | Path) -> str:
    """What a command prints; it must end with 0."""
    environment = os.environ | {"PYTHONPATH": str(copy / "src")}
    done = subprocess.run(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_there_is_something_to_follow() -> None:
    assert len(REPLACE.findall(SYSTEM)) == 3
    assert len(FILE.findall(SYSTEM)) == 4


def test_the_new_system_passes_its_test_and_those_of_the_house(copy: Path) -> None:
    chosen = ["tests/unit/echo", "tests/unit/test_doors.py", "tests/unit/test_words.py", "tests/unit/test_style.py"]
    printed = run(copy, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "echo or door", *chosen)
    assert "passed" in printed
    assert "failed" not in printed


def test_the_new_system_has_its_layer(copy: Path) -> None:
    assert "0 broken" in run(copy, Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache")


def test_the_new_system_is_in_the_picture_and_in_style(copy: Path) -> None:
    run(copy, sys.executable, "dev_picture.py")
    assert ">echo</text>" in (copy / "docs" / "architecture.svg").read_text(encoding="utf-8")
    ruff = Path(sys.executable).parent / "ruff"
    run(copy, ruff, "check", "--no-cache", "src/outlast/echo", "tests/unit/echo")
    run(copy, ruff, "format", "--check", "--no-cache", "src/outlast/echo", "tests/unit/echo")


def test_the_set_up_that_is_promised_is_that_of_dev_py() -> None:
    text = (ROOT / "dev.py").read_text(encoding="utf-8")
    assert "OLDEST = (3, 11)" in text
    assert "NEWEST = (3, 13)" in text
    assert "`.venvs/3.13`" in PAGE
