"""The set-up script's own arithmetic; that it sets up and runs is shown by whatever runs these tests."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "dev.py"


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    return loaded(SCRIPT)


def loaded(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"outlast_{script.stem}_script", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_older_pythons_can_compile_it_far_enough_to_say_what_they_need() -> None:
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_a_report_is_summed_up(dev: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>', encoding="utf-8")
    tally = dev.tally_of(report) + dev.Tally(passed=1)
    assert (tally.passed, tally.failed, tally.skipped) == (4, 3, 3)
    assert dev.tally_of(tmp_path / "none.xml") == dev.Tally()


def test_the_newest_python_comes_first_and_each_version_once(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"a": "3 11", "b": "3 13", "c": "3 13", "d": "3 9", "e": "no Python"}

    class Done:
        def __init__(self, program: Path) -> None:
            self.returncode = 0
            self.stdout = answers[program.name]

    def run(command: list[Any], **_: object) -> Done:
        return Done(command[0])

    monkeypatch.setattr(dev, "candidates", lambda: [Path(name) for name in answers])
    monkeypatch.setattr(dev.subprocess, "run", run)
    assert dev.find_pythons() == {(3, 13): Path("b"), (3, 11): Path("a")}
    assert list(dev.find_pythons()) == [(3, 13), (3, 11)]


def test_a_machine_without_a_python_is_told_what_to_install(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "candidates", list)
    with pytest.raises(dev.SetupError, match="apt-get install python3-venv"):
        dev.find_pythons()


def test_a_version_that_is_not_there_is_named_with_those_that_are(dev: ModuleType) -> None:
    with pytest.raises(dev.SetupError, match=r"asked for Python 3\.9, and this machine has 3\.12"):
        dev.only({(3, 12): Path("python")}, "3.9")


def test_a_step_that_fails_shows_what_it_printed(dev: ModuleType) -> None:
    with pytest.raises(dev.SetupError, match=r"(?s)trying failed with exit code 3.*the reason"):
        dev.step([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], "trying")


def test_an_environment_is_made_anew_when_what_it_is_made_from_changes(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text("a", encoding="utf-8")
    (tmp_path / "constraints.txt").write_text("b", encoding="utf-8")
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "PINS", tmp_path / "constraints.txt")
    steps: list[str] = []

    def step(command: list[Any], what: str) -> None:
        steps.append(what)
        (tmp_path / "one" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "one" / "bin" / "python").touch()

    monkeypatch.setattr(dev, "step", step)
    python = ((3, 13), Path("python3.13"))

    def steps_for(extra: str) -> int:
        steps.clear()
        dev.environment(python, tmp_path / "one", extra)
        return len(steps)

    assert [steps_for(extra) for extra in ("test", "test", "dev", "test", "dev")] == [3, 0, 3, 0, 0]
    (tmp_path / "constraints.txt").write_text("c", encoding="utf-8")
    assert steps_for("test") == 3


def test_an_unknown_task_shows_the_usage(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert dev.main(["nothing"]) == 2
    assert dev.main(["--help"]) == 0
    assert "python3 dev.py test" in capsys.readouterr().out


def test_the_last_line_sums_up_and_a_failure_anywhere_fails_the_run(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = {(3, 13): Path("a"), (3, 12): Path("b")}
    monkeypatch.setattr(dev, "find_pythons", lambda: ready)
    monkeypatch.setattr(dev, "environments", lambda _: ready)

    def outcome(broken: list[str], **tallies: Any) -> tuple[int, list[str]]:
        monkeypatch.setattr(dev, "lint", lambda _: (broken, 1.0))
        parts = [dev.Part("tests/unit", version, tally, 1.0) for version, tally in zip(ready, tallies.values(), strict=True)]
        monkeypatch.setattr(dev, "pytest_on_all", lambda _: parts)
        return dev.test([]), capsys.readouterr().out.splitlines()

    fine, nothing = dev.Tally(passed=5, skipped=1), dev.Tally()
    code, lines = outcome([], newest=fine, other=dev.Tally(passed=4))
    assert code == 0
    assert [line for line in lines if "passed," in line] == [
        "dev: Python 3.13: 5 passed, 0 failed, 1 skipped",
        "dev: Python 3.12: 4 passed, 0 failed, 0 skipped",
        "9 passed, 0 failed",
    ]
    code, lines = outcome([], newest=fine, other=dev.Tally(passed=4, failed=2))
    assert (code, lines[-1]) == (1, "9 passed, 2 failed")
    assert outcome(["mypy"], newest=fine, other=fine)[0] == 1
    assert outcome([], newest=fine, other=nothing)[0] == 1


def test_a_part_above_its_share_is_named_with_what_to_do(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    share = dev.SHARES_S["tests/unit"]
    assert dev.compare_with_shares([("lint", 1.0), ("tests/unit", share)]) == []
    capsys.readouterr()
    # Two runs of one part, such as two versions of Python, share it.
    assert dev.compare_with_shares([("tests/unit", share), ("lint", 1.0), ("tests/unit", 2.0)]) == ["tests/unit"]
    said = capsys.readouterr().out
    assert f"tests/unit cost {share + 2} s of processor time, and its share is {share} s: make the costliest" in said


def test_all_shares_together_are_thirteen_minutes(dev: ModuleType) -> None:
    assert sum(dev.SHARES_S.values()) <= 16 * 60 + 42


def test_a_program_costs_what_its_children_cost_too(dev: ModuleType) -> None:
    spin = "import time\nwhile time.process_time() < 0.2: pass"
    done = dev.measured([sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"])
    assert (done.returncode, done.printed) == (0, "")
    assert done.cpu_s >= 0.2
    assert dev.measured([sys.executable, "-c", "print('no'); raise SystemExit(3)"]).printed == "no\n"


SAMPLE = """
import json
from os import path as PATH

LIMIT, _hidden = 3, 4
if LIMIT:
    name: str = "x"


class Shape:
    sides: int

    def area(self) -> float:
        half = 0.5
        return half

    def _secret(self) -> None: ...


class _Private:
    member = 1


def draw() -> None:
    pass
"""


def test_statements_lines_and_public_names_are_counted() -> None:
    size = loaded(SCRIPT.with_name("dev_size.py")).size_of_text(SAMPLE)
    # LIMIT, name, Shape, Shape.sides, Shape.area, draw.
    assert (size.statements, size.lines, size.public_names) == (16, 25, 6)
