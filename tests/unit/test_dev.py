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
    spec = importlib.util.spec_from_file_location("outlast_dev_script", SCRIPT)
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
        monkeypatch.setattr(dev, "lint", lambda _: broken)
        monkeypatch.setattr(dev, "pytest_on_all", lambda _: dict(zip(ready, tallies.values(), strict=True)))
        return dev.test([]), capsys.readouterr().out.splitlines()

    fine, nothing = dev.Tally(passed=5, skipped=1), dev.Tally()
    code, lines = outcome([], newest=fine, other=dev.Tally(passed=4))
    assert code == 0
    assert lines[-3:] == [
        "dev: Python 3.13: 5 passed, 0 failed, 1 skipped",
        "dev: Python 3.12: 4 passed, 0 failed, 0 skipped",
        "9 passed, 0 failed",
    ]
    code, lines = outcome([], newest=fine, other=dev.Tally(passed=4, failed=2))
    assert (code, lines[-1]) == (1, "9 passed, 2 failed")
    assert outcome(["mypy"], newest=fine, other=fine)[0] == 1
    assert outcome([], newest=fine, other=nothing)[0] == 1
