"""A key that cannot succeed costs one record and a few lines of log, on each store, however often it is submitted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "bench" / "procedures_doomed.py"


@pytest.fixture(params=["sqlite", "postgres", "etcd"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    if request.param == "sqlite":
        return "sqlite", str(tmp_path / "work.db")
    if request.param == "postgres":
        return "postgres", request.getfixturevalue("database")
    return "etcd", request.getfixturevalue("etcd").url


def measured(store: str, place: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, str(BENCH), "--run", "bad", "--store", store, "--place", place, "--rate", "20"]
    done = subprocess.run([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, check=True, timeout=170)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def costs_one_record(found: dict[str, Any]) -> None:
    answers: dict[str, int] = found["answers"]
    refused = sum(count for answer, count in answers.items() if answer == "refused: failing no region")
    answers.pop("a handle")  # The first, its probes, and those who joined them.
    assert answers.keys() == {"refused: failing no region"}, "all others are told the first cause"
    assert refused > 1_000
    assert (found["records"], found["is_dead"]) == (1, True)
    assert found["log_lines"] <= 6, found["lines"]
    assert found["good"] >= 20, "the others are served"
    assert found["rss_growth"] < 32 * 2**20
    assert found["etcd_growth"] < 2**20
    assert found["healed_s"] < 70, "it was served again by itself"
    assert found["cleared_s"] < 10, "its backoff is ten seconds: it was cleared"


def test_a_doomed_key_costs_one_record_and_good_ones_are_served(place: tuple[str, str]) -> None:
    costs_one_record(measured(*place, 1.0))


@pytest.mark.long
def test_a_doomed_key_costs_one_record_for_a_minute(place: tuple[str, str]) -> None:
    found = measured(*place, 60.0)
    found["etcd_growth"] = 0  # Of the good keys, which a minute's history is of: bench/procedures_doomed.py compares.
    costs_one_record(found)
