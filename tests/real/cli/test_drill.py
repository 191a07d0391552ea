"""`outlast drill` as people start it: a short outage of a real server, a slot that is taken for a moment, a disk that is full."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast._cli.errors import Exit
from outlast._drill.fluvio.arms.log_server import DISK_VARIABLE

SHORT = {
    "coder": ("--outage", "3s", "--warmup", "1s", "--cooldown", "3s", "--loops", "10"),
    "electric": ("--outage", "3s", "--warmup", "1s", "--cooldown", "3s", "--loops", "10"),
    "fluvio": ("--outage", "0.4s", "--warmup", "0.2s", "--cooldown", "0.3s", "--size", "16", "--fault", "full-at-once"),
    # So small a quota is no more than the naive arm needs in a moment.
    "greptime": ("--outage", "1.5s", "--warmup", "1s", "--cooldown", "2s", "--writes", "300", "--quota", "2"),
}
ARM_KEYS = {"arm", "log_lines", "log_bytes", "attempts", "cpu_s", "rss_peak_mib", "connects_100ms_max", "lost", "twice"}
OWN_KEYS = {
    "coder": {"recovery_s_p50", "recovery_s_max"},
    "electric": {"recovery_s", "throughput_percent", "changes"},
    "fluvio": {"recovery_s", "phantom", "refusal_ms_p99"},
    "greptime": {"records", "store_bytes", "refusal_ms_p99", "others_percent", "heal_s"},
}
FAULTS = {"coder": ("stop", 3.0), "electric": ("slot-taken", 3.0), "fluvio": ("full-at-once", 0.4), "greptime": ("refused", 1.5)}


def start(drill: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "outlast", "drill", drill, *words],
        env={**os.environ, "PYTHONPATH": str(Path(outlast.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module", params=["coder", "electric", "fluvio", "greptime"])
def drill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], str, str]:
    """One drill of two arms: its exit code, its JSON, what it wrote meanwhile, its report."""
    report = tmp_path_factory.mktemp("drill") / "out.html"
    process = start(request.param, *SHORT[request.param], "--arms", "naive,outlast", "--json", "--report", str(report))
    out, err = process.communicate(timeout=150)
    if process.returncode == Exit.SKIPPED:
        pytest.skip(err)
    assert out, err
    return process.returncode, json.loads(out), err, report.read_text()


def test_its_json_has_the_shape_of_every_drill(drill: tuple[int, dict[str, Any], str, str]) -> None:
    _, result, _, _ = drill
    assert (result["fault"], result["outage_s"], result["seed"]) == (*FAULTS[result["drill"]], 1)
    assert [arm["arm"] for arm in result["arms"]] == ["naive", "outlast"]
    assert all(set(arm) >= ARM_KEYS | OWN_KEYS[result["drill"]] for arm in result["arms"])


def test_the_naive_arm_storms_and_the_outlast_arm_does_not(drill: tuple[int, dict[str, Any], str, str]) -> None:
    code, result, _, _ = drill
    naive, calm = result["arms"]
    assert naive["log_lines"] > 20 * calm["log_lines"]
    assert naive["attempts"] > 10 * calm["attempts"]
    assert calm["lost"] == 0
    # The slot keeps the position of the stream: a change may come again. A job may not.
    assert calm["twice"] == 0 or result["drill"] == "electric"
    # On a busy machine a promise about time may break; then the exit code must say so.
    assert code == (0 if all(promise["held"] for promise in result["promises"]) else 1)


def test_doomed_work_fills_the_store_of_the_naive_arm_and_is_one_record_in_ours(
    drill: tuple[int, dict[str, Any], str, str],
) -> None:
    _, result, _, _ = drill
    if result["drill"] != "greptime":
        pytest.skip("another drill")
    naive, ours = result["arms"]
    assert naive["alarm"]
    assert result["stormed"]
    assert naive["records"] > 20
    assert naive["lost"] > 20, "tasks of which clients were told that they go on"
    assert naive["heal_s"] is None
    assert not ours["alarm"]
    assert ours["records"] == 1
    assert ours["log_lines"] <= 6
    assert ours["refused"] > 10 * ours["attempts"]
    assert ours["hung_up"] == 0


def test_it_says_what_it_does_and_writes_a_report_that_needs_nothing_else(drill: tuple[int, dict[str, Any], str, str]) -> None:
    _, _, said, report = drill
    for phase in ("starting", "healthy", "outage", "recovery", "done"):
        assert phase in said
    assert "Traceback" not in said
    assert report.count("<svg") == 2
    assert "<script src" not in report
    assert "<link" not in report


@pytest.mark.parametrize(
    ("drill", "words", "number"),
    [
        ("coder", ("--loops", "5"), signal.SIGINT),
        ("coder", ("--loops", "5"), signal.SIGTERM),
        ("fluvio", ("--fault", "full-at-once", "--size", "16"), signal.SIGTERM),
    ],
)
def test_a_signal_ends_it_and_leaves_no_process_behind(drill: str, words: tuple[str, ...], number: signal.Signals) -> None:
    process = start(drill, "--outage", "60s", "--warmup", "1s", "--arms", "naive", *words)
    assert process.stderr is not None
    seen = ""
    while "outage" not in seen:
        line = process.stderr.readline()
        if "skipped" in line:
            pytest.skip(line)
        assert line, seen
        seen += line
    family = _descendants(process.pid)
    assert family
    disks = _disks(family)
    assert bool(disks) is (drill == "fluvio")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "outlast: interrupted"
    assert "Traceback" not in err
    deadline = time.monotonic() + 60
    while any(map(_alive, family)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in family if _alive(pid)]
    assert not [disk for disk in disks if disk.exists()]


def _descendants(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _disks(pids: list[int]) -> list[Path]:
    """The small disks that arms among those processes were given."""
    import psutil

    found: list[Path] = []
    for pid in pids:
        # Some end meanwhile.
        with contextlib.suppress(psutil.Error):
            found += [Path(value) for name, value in psutil.Process(pid).environ().items() if name == DISK_VARIABLE]
    return found


def _alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_without_root_a_small_disk_is_mounted_in_a_namespace() -> None:
    # As a user who is not root, in a namespace where the files of this user can be read; the drill then makes one of its own.
    command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
    if subprocess.run([*command, "unshare", "--user", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no user namespace in another one")
    words = [*SHORT["fluvio"], "--arms", "fluvio-fixed", "--json"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "outlast", "drill", "fluvio", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "PYTHONPATH": str(Path(outlast.__file__).parents[1])},
    )
    result = json.loads(done.stdout)
    assert result["machine"]["rights"] == "root of a user namespace"
    (arm,) = result["arms"]
    assert (arm["log_lines"], arm["recovery_s"], arm["lost"]) == (1, None, 0)
    assert arm["refused"] > 0


def test_where_no_small_disk_can_be_made_the_drill_says_so_and_is_skipped() -> None:
    command = ["unshare", "--user", "--map-user=1000", "--"]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no user namespace")
    done = subprocess.run(
        [*command, sys.executable, "-m", "outlast", "drill", "fluvio"],
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "PYTHONPATH": str(Path(outlast.__file__).parents[1])},
    )
    assert done.returncode == Exit.SKIPPED
    assert done.stdout == ""
    assert done.stderr.startswith("outlast: drill fluvio: skipped: mounting a small disk needs root or a user namespace: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_fault_that_a_disk_does_not_know_is_an_error_of_its_user() -> None:
    process = start("fluvio", "--fault", "eio", "--disk", "tmpfs")
    _, err = process.communicate(timeout=60)
    assert process.returncode == Exit.USAGE
    assert err.splitlines() == ["outlast: fault 'eio' cannot be staged on a disk of kind 'tmpfs'; choose faulty"]
