"""Collectors of Debian, unchanged, for a minute: what they sent is what can be read, to the value.

They are skipped, by name, where they are not installed: `apt-get install collectd-core netdata-core icinga2-bin`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import click
import pytest
from sender_rig import Points, Tap, serving, stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = float(os.environ.get("OUTLAST_SENDERS_S", "60"))
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

COLLECTD = """\
Hostname "shop"
FQDNLookup false
BaseDir "{folder}"
PIDFile "{folder}/collectd.pid"
PluginDir "/usr/lib/collectd"
TypesDB "/usr/share/collectd/types.db"
Interval 1
LoadPlugin cpu
LoadPlugin memory
LoadPlugin load
LoadPlugin df
LoadPlugin write_tsdb
<Plugin write_tsdb>
  <Node>
    Host "127.0.0.1"
    Port "{put}"
    HostTags "dc=home"
  </Node>
</Plugin>
"""

NETDATA = """\
[global]
    hostname = shop
    run as user = root
[directories]
    config = {folder}
    cache = {folder}/cache
    lib = {folder}/lib
    log = {folder}/log
    home = {folder}
[db]
    mode = ram
    retention = 600
[web]
    mode = none
[ml]
    enabled = no
[health]
    enabled = no
[plugins]
    tc = no
    idlejitter = no
    cgroups = no
    diskspace = no
    statsd = no
    timex = no
    enable running new plugins = no
"""
EXPORTING = """\
[exporting:global]
    enabled = yes
[opentsdb:http:outlast]
    enabled = yes
    destination = 127.0.0.1:{http}
    update every = 2
    hostname = shop
    send charts matching = system.*
"""

ICINGA = """\
const NodeName = "shop"
const ZoneName = NodeName
include <itl>
library "checker"
library "perfdata"
object CheckerComponent "checker" {{ }}
object IcingaApplication "app" {{ }}
object Endpoint NodeName {{ }}
object Zone ZoneName {{ endpoints = [ NodeName ] }}
for (i in range(20)) {{
  object Host "host" + i use (i) {{
    check_command = "dummy"
    check_interval = 1s
    vars.dummy_state = 0
    vars.dummy_text = "up|load=" + i + ".5;1;2;0 users=3 size=12MB;20;30;0;40"
  }}
}}
object OpenTsdbWriter "put" {{
  host = "127.0.0.1"
  port = {put}
}}
object InfluxdbWriter "one" {{
  host = "127.0.0.1"
  port = {http}
  database = "icinga2"
  flush_interval = 1s
  enable_send_thresholds = true
  enable_send_metadata = true
  host_template = {{ measurement = "$host.check_command$", tags = {{ hostname = "$host.name$" }} }}
}}
object Influxdb2Writer "two" {{
  host = "127.0.0.1"
  port = {http}
  organization = "shop"
  bucket = "icinga2"
  auth_token = "any"
  flush_interval = 1s
  host_template = {{ measurement = "two_$host.check_command$", tags = {{ hostname = "$host.name$" }} }}
}}
"""
ICINGA_FOLDERS = {
    "DataDir": "lib",
    "LogDir": "log",
    "CacheDir": "cache",
    "SpoolDir": "spool",
    "InitRunDir": "run",
    "ConfigDir": "etc",
}


def program(*names: str) -> str:
    """The first of these programs that is there; the test is skipped if none is."""
    for name in names:
        found = shutil.which(name, path=PATH)
        if found:
            return found
    pytest.skip(f"{names[0]} is not installed")


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """Run a collector for SECONDS; it is asked to end, and has written what it has to its log."""
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            time.sleep(SECONDS)
            assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
            yield
            process.terminate()
            process.wait(30)
        finally:
            process.kill()


def told(name: str, sent: Points, *taps: Tap) -> None:
    statuses = sorted({status for tap in taps for status in tap.statuses()})
    series = {(table, tags) for table, tags, _ in sent}
    click.echo(f"{name}: {len(sent):,} points of {len(series):,} series in {SECONDS:.0f} s, all of them read; answers {statuses}")


def test_collectd(tmp_path: Path) -> None:
    collectd = program("collectd")
    with serving(tmp_path / "metrics.db") as served, Tap(served.put) as tap:
        config = tmp_path / "collectd.conf"
        config.write_text(COLLECTD.format(folder=tmp_path, put=tap.port), encoding="utf-8")
        with running([collectd, "-f", "-C", str(config)], tmp_path / "collectd.log"):
            pass
        tap.settle()
        served.stop()
    sent = tap.of_puts()
    assert {name[0] for name in sent} >= {"load.load.shortterm", "memory.free.memory"}
    assert len(sent) >= SECONDS * 10
    assert stored(served.path) == sent
    assert [line for line in served.errors if " INFO " not in line] == []
    told("collectd write_tsdb", sent)


def test_netdata(tmp_path: Path) -> None:
    netdata = program("netdata")
    for name in ("cache", "lib", "log"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "metrics.db") as served, Tap(served.port) as tap:
        config = tmp_path / "netdata.conf"
        config.write_text(NETDATA.format(folder=tmp_path), encoding="utf-8")
        (tmp_path / "exporting.conf").write_text(EXPORTING.format(http=tap.port), encoding="utf-8")
        with running([netdata, "-D", "-c", str(config)], tmp_path / "netdata.log"):
            pass
        tap.settle()
        served.stop()
    sent = tap.of_json()
    assert "netdata.system.cpu.user" in {name[0] for name in sent}
    assert len(sent) >= SECONDS * 10
    assert stored(served.path) == sent
    assert [line for line in served.errors if " INFO " not in line] == []
    told("Netdata opentsdb:http", sent, tap)


def test_icinga(tmp_path: Path) -> None:
    """Three writers at once: put by telnet, InfluxDB 1 and InfluxDB 2."""
    program("icinga2")
    icinga = program("/usr/lib/x86_64-linux-gnu/icinga2/sbin/icinga2", "icinga2")
    with serving(tmp_path / "metrics.db") as served, Tap(served.put) as put, Tap(served.port) as http:
        config = tmp_path / "icinga2.conf"
        config.write_text(ICINGA.format(put=put.port, http=http.port), encoding="utf-8")
        command = [icinga, "daemon", "-c", str(config), "-z", "-D", "RunAsUser=root", "-D", "RunAsGroup=root"]
        for name, folder in ICINGA_FOLDERS.items():
            (tmp_path / folder).mkdir()
            command += ["-D", f"{name}={tmp_path / folder}"]
        with running(command, tmp_path / "icinga.log"):
            pass
        put.settle()
        http.settle()
        served.stop()
    by_put, one, two = put.of_puts(), http.of_lines(b"/write"), http.of_lines(b"/api/v2/write")
    assert min(map(len, (by_put, one, two))) >= SECONDS
    assert set(http.statuses()) == {204}
    assert stored(served.path) == by_put | one | two
    assert [line for line in served.errors if " INFO " not in line] == []
    for name, sent in (("OpenTsdbWriter", by_put), ("InfluxdbWriter", one), ("Influxdb2Writer", two)):
        told(f"Icinga 2 {name}", sent, http)
