"""The runner of the suite: a run in which something failed, or that ran nothing, is none that passed; a skip says why."""

from __future__ import annotations

import json
import shutil
from itertools import chain
from typing import Any

import pytest
from npm_packages import PINS, Suite, packages
from test_conformance import CORE, FORKS, RESERVED, assert_whole


def ended(status: str, group: str, count: int) -> list[dict[str, Any]]:
    return [
        {"ancestorTitles": [group], "fullName": f"{group} {number}", "status": status, "failureMessages": []}
        for number in range(count)
    ]


def report(*groups: list[dict[str, Any]], message: str = "") -> Suite:
    return Suite.of({"testResults": [{"message": message, "assertionResults": list(chain(*groups))}]})


WHOLE = (
    ended("passed", "Reads", CORE),
    ended("passed", "Fork - Reads", FORKS),
    ended("skipped", "Reserved subscription APIs", RESERVED),
)


def test_a_run_in_which_everything_passed_is_whole() -> None:
    assert_whole(report(*WHOLE))


def test_a_test_that_failed_is_named_with_the_line_of_the_suite() -> None:
    failed = ended("failed", "Fork - Creation", 1)
    failed[0]["failureMessages"] = [
        "AssertionError: expected 1 to be 2\n    at file:///x/suite.js:12:3\n    at file:///x/other.js:1:1"
    ]
    with pytest.raises(pytest.fail.Exception, match=r"Fork - Creation 0: AssertionError: expected 1 to be 2 \(suite\.js:12\)"):
        assert_whole(report(*WHOLE, failed))


@pytest.mark.parametrize(
    "suite",
    [
        Suite.of({"testResults": []}),
        report(*WHOLE[1:], ended("passed", "Reads", CORE - 1)),
        report(WHOLE[0], WHOLE[2], ended("skipped", "Fork - Reads", FORKS)),
        report(*WHOLE, ended("pending", "Reads", 1)),
    ],
    ids=["nothing", "one less", "forks skipped", "one that did not run"],
)
def test_a_run_that_left_something_out_fails(suite: Suite) -> None:
    with pytest.raises(AssertionError):
        assert_whole(suite)


def test_a_file_that_cannot_be_loaded_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="cannot find package"):
        assert_whole(report(*WHOLE, message="cannot find package"))


@pytest.mark.parametrize(("missing", "reason"), [({"node"}, "no node"), ({"npm"}, "no npm")])
def test_without_node_the_suite_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, missing: set[str], reason: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in missing else f"/usr/bin/{name}")
    with pytest.raises(pytest.skip.Exception, match=rf"needs Node\.js 20 or later and npm, and there is {reason}"):
        packages.__wrapped__()


def test_every_package_is_pinned_by_its_hash_and_comes_from_whatever_registry_is_used() -> None:
    lock = json.loads((PINS / "package-lock.json").read_bytes())
    wanted = json.loads((PINS / "package.json").read_bytes())["dependencies"]
    installed = {path.removeprefix("node_modules/"): what for path, what in lock["packages"].items() if path}
    assert {name: installed[name]["version"] for name in wanted} == wanted
    assert all(what["integrity"].startswith("sha512-") and "resolved" not in what for what in installed.values())
