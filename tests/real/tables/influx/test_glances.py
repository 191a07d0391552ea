"""Glances, unchanged, exports to InfluxDB 2 and 3: what it sent and was told is stored can be read."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from line_protocol_parser import parse_line
from metrics_door import SECRET, Door, Sent, door

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conftest import RunAsync

GLANCES = Path(sys.executable).with_name("glances")
CONFIG = """
[global]
check_update=false
[influxdb2]
host=127.0.0.1
port={port}
protocol=http
org=shop
bucket=glances2
token={secret}
user=glances
password={secret}
prefix=two
interval=1
[influxdb3]
host=http://127.0.0.1:{port}
port={port}
org=shop
database=glances3
token={secret}
prefix=three
"""
PLUGINS = "processlist,programlist,docker,containers,vms,cloud,folders,ports,wifi,sensors,gpu,npu,smart,raid,amps,connections"
"""What costs much time, or needs what is not on this machine."""


def by_series(requests: Iterable[Sent]) -> dict[tuple[str, frozenset[tuple[str, str]]], list[dict[str, Any]]]:
    """Return what another parser makes of the bodies: for each series its points, folded where a request has two of one time.

    Glances sends no times, so those of one request are one point, and the next request has another.
    """
    found: dict[tuple[str, frozenset[tuple[str, str]]], list[dict[str, Any]]] = defaultdict(list)
    for request in requests:
        folded: dict[tuple[str, frozenset[tuple[str, str]]], dict[str, Any]] = defaultdict(dict)
        for line in request.lines:
            parsed = parse_line(line)
            assert parsed["time"] is None
            folded[parsed["measurement"], frozenset(parsed["tags"].items())].update(parsed["fields"])
        for series, fields in folded.items():
            found[series].append(fields)
    return dict(found)


async def readable(at: Door) -> dict[tuple[str, frozenset[tuple[str, str]]], list[dict[str, Any]]]:
    """Return what can be read in the same form, in the order of time."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], list[dict[str, Any]]] = defaultdict(list)
    for record in await at.tables.tables():
        for tags, _, fields in sorted(await at.read(record.name), key=lambda point: point[1]):
            found[record.name, frozenset(tags.items())].append(fields)
    return dict(found)


async def run_glances(folder: Path, port: int, *, turns: int) -> str:
    """Run it for so many turns of a second; return its log."""
    config, log = folder / "glances.conf", folder / "glances.log"
    config.write_text(CONFIG.format(port=port, secret=SECRET))
    logging = folder / "logging.json"
    logging.write_text(
        '{"version": 1, "disable_existing_loggers": false, "root": {"level": "DEBUG", "handlers": ["file"]}, "handlers":'
        f' {{"file": {{"class": "logging.FileHandler", "filename": "{log}"}}}}}}'
    )
    process = await asyncio.create_subprocess_exec(
        *(GLANCES, "--config", config, "--quiet", "--time", "1", "--stop-after", str(turns)),
        *("--export", "influxdb2,influxdb3", "--disable-plugin", PLUGINS, "--disable-check-update", "--debug"),
        env={**os.environ, "LOG_CFG": str(logging), "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return log.read_text()


def check(run_async: RunAsync, folder: Path, turns: int) -> None:
    async def main() -> None:
        async with door(folder) as at:
            log = await run_glances(folder, at.served.server.port, turns=turns)
            assert "Connected to InfluxDB server version 1.8.10 (ready for queries and writes)" in log
            assert [line for line in log.splitlines() if "Cannot export" in line and "Cannot export empty" not in line] == []
            assert {sent.status for sent in at.writes} == {204}
            assert {sent.path for sent in at.writes} >= {"/api/v2/write"}
            sent, found = by_series(at.writes), await readable(at)
            assert found == sent
            # Glances says what it exports, plugin by plugin. Version 3 sends each at once. Version 2 sends batches, the last of
            # which Glances leaves behind; lines of two turns in one have no time and are one point, with the original too.
            said = Counter(re.findall(r"Export (\S+) stats to InfluxDB", log))
            assert min(said.values()) >= turns - 1
            assert {table for table, _ in found} == set(said)
            for table in said:
                points = max(len(points) for (name, _), points in found.items() if name == table)
                assert points == said[table] if table.startswith("three.") else points >= 1, table

    run_async(main, limit_s=turns + 60.0)


def test_what_glances_sent_in_four_turns_can_be_read(run_async: RunAsync, tmp_path: Path) -> None:
    check(run_async, tmp_path, 4)


@pytest.mark.long
def test_what_glances_sent_in_a_minute_can_be_read(run_async: RunAsync, tmp_path: Path) -> None:
    check(run_async, tmp_path, 60)
