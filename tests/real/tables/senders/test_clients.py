"""Libraries of others that speak OpenTSDB, unchanged: what they say they sent is what can be read."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import opentsdb
import potsdb
from sender_rig import Tap, serving, stored

if TYPE_CHECKING:
    from pathlib import Path

GLANCES = """\
[opentsdb]
host=127.0.0.1
port={port}
prefix=glances
tags=site:home
[global]
check_update=false
"""
START = 1_800_000_000


def test_potsdb_and_opentsdb_py_have_what_they_sent(tmp_path: Path) -> None:
    """One by telnet's put, which reads no answer; one over HTTP, which counts them; both with times of their own."""
    with serving(tmp_path / "metrics.db") as served, Tap(served.put) as tap:
        by_put = potsdb.Client("127.0.0.1", port=tap.port, host_tag="shop")
        for number in range(300):
            by_put.send("orders", number / 4, timestamp=START + number, kind="web")
        by_put.wait()
        by_http = opentsdb.TSDBClient("127.0.0.1", served.port, static_tags={"dc": "home"}, host_tag=False)
        for number in range(300):
            by_http.send("stock", 2**53 + number, timestamp=START + number)
        by_http.close()
        by_http.wait()
        tap.settle()
        served.stop()
    assert (by_put.queued, by_http.statuses) == (300, {"success": 300, "failed": 0, "queued": 300})
    found = stored(served.path)
    assert {name: fields for name, fields in found.items() if name[0] == "orders"} == {
        ("orders", frozenset({("kind", "web"), ("host", "shop")}), (START + number) * 10**9): {"value": number / 4}
        for number in range(300)
    }
    assert {name: fields for name, fields in found.items() if name[0] == "stock"} == {
        ("stock", frozenset({("dc", "home")}), (START + number) * 10**9): {"value": 2**53 + number} for number in range(300)
    }
    assert [line for line in served.errors if " INFO " not in line] == []


def test_glances_has_what_it_sent(tmp_path: Path) -> None:
    with serving(tmp_path / "metrics.db") as served, Tap(served.put) as tap:
        config = tmp_path / "glances.conf"
        config.write_text(GLANCES.format(port=tap.port), encoding="utf-8")
        command = [sys.executable, "-m", "glances", "-C", str(config), "--export", "opentsdb", "--quiet", "--stop-after", "2"]
        command += ["--time", "1", "--enable-plugin", "cpu,mem,load,memswap,fs,network", "--disable-plugin", "all"]
        subprocess.run(command, check=True, capture_output=True, timeout=100)
        tap.settle()
        served.stop()
    sent = tap.of_puts()
    assert len(sent) > 20
    assert {name[0] for name in sent} >= {"glances.cpu.user", "glances.mem.percent", "glances.load.min1"}
    assert stored(served.path) == sent
