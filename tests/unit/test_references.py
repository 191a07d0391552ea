"""What the documents name is there: paths, links, headings, tests, tasks of dev.py, and the picture that a command makes."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "outlast"
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "bench" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOPS = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name in {"bench", "docs", "examples", "src", "tests"}}
INNER = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")}
EXAMPLE = "echo"
"""The system that CONTRIBUTING.md makes in a copy."""

CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?<![\w./<{])((?:[\w-]+/)+[\w.-]*\w|\w+\.(?:py|toml|md))/?(?![\w*<{/])")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TEST_NAME = re.compile(r"\btest_\w+\b(?!\.py)")
TASK = re.compile(r"python3? dev\.py (\w+)")


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings of a page."""
    plain = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading) for heading in HEADING.findall(without_fences(text)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def paths_named(text: str) -> set[str]:
    """The paths of this repository in code between backticks; `jobs/_queue.py` is one below src/outlast."""
    named = {match for code in CODE.findall(without_fences(text)) for match in PATH.findall(code)}
    named = {name for name in named if EXAMPLE not in name}
    return {name for name in named if name.split("/")[0] in TOPS | INNER or ("/" not in name and (ROOT / name).suffix == ".toml")}


def exists(name: str) -> bool:
    return (ROOT / name).exists() or (PACKAGE / name).exists()


@pytest.fixture(scope="module")
def test_names() -> set[str]:
    names: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        names |= {path.stem, *re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)}
    return names


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_paths_exist(page: Path) -> None:
    missing = sorted(name for name in paths_named(page.read_text(encoding="utf-8")) if not exists(name))
    assert not missing, f"{page.relative_to(ROOT)} names what is not there: {', '.join(missing)}"


@each_page
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(without_fences(page.read_text(encoding="utf-8"))):
        if "://" in link or link.startswith("mailto:"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.relative_to(ROOT)}: {link}: no such file"
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{page.name}: {link}: no such heading"


@each_page
def test_tests_that_are_named_exist(page: Path, test_names: set[str]) -> None:
    named = {name for code in CODE.findall(page.read_text(encoding="utf-8")) for name in TEST_NAME.findall(code)}
    assert sorted(named - test_names) == []


@each_page
def test_tasks_of_dev_py_exist(page: Path) -> None:
    tasks = re.findall(r"^        \"(\w+)\": \w+,$", (ROOT / "dev.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert "lint" in tasks
    assert sorted(set(TASK.findall(page.read_text(encoding="utf-8"))) - set(tasks)) == []


def test_the_picture_shows_what_there_is() -> None:
    done = subprocess.run(
        [sys.executable, "dev_picture.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_what_is_not_there_is_found() -> None:
    gone = "`tests/unit/gone.py`, `tests/gone/`, `python bench/gone.py --calls 5`, `jobs/_gone.py`"
    text = f"{gone}, `/readyz`, `src/*.py`, `jobs/_queue.py`"
    assert {name for name in paths_named(text) if not exists(name)} == {
        "tests/unit/gone.py",
        "tests/gone",
        "bench/gone.py",
        "jobs/_gone.py",
    }
    assert anchors("# A `b`: c, d\n\n## Any program's output\n") == {"a-b-c-d", "any-programs-output"}


def is_there(module: str, name: str) -> bool:
    """Whether a module has a name, or a package a module of that name."""
    found = importlib.import_module(module)
    return hasattr(found, name) or (hasattr(found, "__path__") and importlib.util.find_spec(f"{module}.{name}") is not None)


IMPORTERS = [path for folder in ("bench", "examples", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", IMPORTERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_tests_and_benches_import_is_there(path: Path) -> None:
    """Those that take long are run seldom: a name that moved is missed here, at once."""
    missing = [
        f"line {node.lineno}: {node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "outlast"
        for alias in node.names
        if not is_there(node.module, alias.name)
    ]
    assert not missing, f"imports what is not there: {', '.join(missing)}"
