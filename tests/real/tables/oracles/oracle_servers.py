"""The servers of other people: where their programs come from, how they run, and what they hold after a write."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from outlast.testing import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = Path(__file__).parents[4] / ".venvs"
"""Where packages are kept that were unpacked: git ignores it."""
START_S_MAX = 30.0
HOUR_NS = 3600 * 10**9

Value = tuple[str, Any]
_INFINITE = re.compile(r"\+?\bInf\b(?=[],])")
"""An infinite value as victoria-metrics exports it, which is no JSON."""


class Point(NamedTuple):
    """A point as a server holds it. `fields` are names with type and value; `time` is None where the server has set it."""

    table: str
    tags: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, Value], ...]
    time: int | None


class Seen(NamedTuple):
    """What a server said to a body, and what it holds of it."""

    is_taken: bool
    points: frozenset[Point]


@functools.cache
def program(package: str, name: str) -> Path:
    """Return the program `name` of a Debian package, unpacked and not installed; skip, with the reason, if it cannot be had."""
    if installed := shutil.which(name):
        return Path(installed)
    place = KEPT / f"deb-{package}"
    found = place / "usr" / "bin" / name
    if not found.exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            pytest.skip(f"there is no {name}, and no apt-get to have the package {package} from")
        KEPT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT, prefix="deb-") as work:
            commands = (["apt-get", "download", package], ["sh", "-c", "dpkg -x *.deb made"])
            for command in commands:
                done = subprocess.run(command, cwd=work, check=False, capture_output=True, text=True, timeout=120)
                if done.returncode:
                    pytest.skip(f"there is no {name}, and `{' '.join(command)}` failed: {' '.join(done.stderr.split())[:200]}")
            with contextlib.suppress(OSError):  # Somebody else has unpacked it meanwhile.
                (Path(work) / "made").rename(place)
    if not found.exists():
        pytest.skip(f"the package {package} has no {name}")
    return found


def ask(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as answer:  # noqa: S310 - our own server
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


@contextlib.contextmanager
def running(command: list[str], url: str, log: Path) -> Iterator[None]:
    """Run a server until the block ends; it is there when it answers at `url`."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            until = time.monotonic() + START_S_MAX
            while True:
                with contextlib.suppress(OSError):
                    ask(url)
                    break
                if process.poll() is not None or time.monotonic() > until:
                    pytest.skip(f"{command[0]} does not answer: {log.read_text(errors='replace')[-300:]}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


CONFIGURATION = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{home}/meta"
[data]
  dir = "{home}/data"
  wal-dir = "{home}/wal"
  query-log-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
"""


class Influx:
    """influxd 1.6: each body has a database of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    @contextlib.contextmanager
    def running(cls, home: Path) -> Iterator[Influx]:
        port = free_port()
        config = home / "influxd.conf"
        config.write_text(CONFIGURATION.format(home=home, port=port, rpc=free_port()), encoding="utf-8")
        url = f"http://127.0.0.1:{port}"
        with running([str(program("influxdb", "influxd")), "run", "-config", str(config)], f"{url}/ping", home / "log"):
            yield cls(url)

    def seen(self, bodies: list[bytes]) -> list[Seen]:
        found = []
        for number, body in enumerate(bodies):
            self._query(f"CREATE DATABASE c{number}", "")
            status, _ = ask(f"{self._url}/write?db=c{number}&precision=n", body)
            found.append(Seen(status == 204, self._points(f"c{number}")))
            self._query(f"DROP DATABASE c{number}", "")
        return found

    def _points(self, database: str) -> frozenset[Point]:
        keys = self._query("SHOW FIELD KEYS", database)
        types = {(series["name"], name): kind for series in keys for name, kind in series["values"]}
        points = set()
        for series in self._query("SELECT * FROM /.*/ GROUP BY *", database):
            tags = tuple(sorted((name, value) for name, value in series.get("tags", {}).items() if value))
            for time_ns, *values in series["values"]:
                cells = zip(series["columns"][1:], values, strict=True)
                fields = {
                    name: _typed(types.get((series["name"], name), "?"), value) for name, value in cells if value is not None
                }
                points.add(point(series["name"], tags, fields, time_ns))
        return frozenset(points)

    def _query(self, query: str, database: str) -> list[dict[str, Any]]:
        asked = urllib.parse.urlencode({"q": query, "db": database, "epoch": "ns"})
        _, answer = ask(f"{self._url}/query", asked.encode())
        series: list[dict[str, Any]] = json.loads(answer.decode("utf-8", "replace"))["results"][0].get("series", [])
        return series


def _typed(kind: str, value: Any) -> Value:
    return (kind, float(value)) if kind == "float" else (kind, value)


def point(table: str, tags: tuple[tuple[str, str], ...], fields: dict[str, Value], time_ns: int) -> Point:
    """Make a point; a time of this hour is one that the server has set."""
    is_now = abs(time_ns - time.time_ns()) < HOUR_NS
    return Point(table, tags, tuple(sorted(fields.items())), None if is_now else time_ns)


class Victoria:
    """victoria-metrics: each body has a label of its own, `db`. Its points are samples: one number, to the millisecond."""

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    @contextlib.contextmanager
    def running(cls, home: Path) -> Iterator[Victoria]:
        url = f"http://127.0.0.1:{(port := free_port())}"
        command = [str(program("victoria-metrics", "victoria-metrics")), f"-storageDataPath={home}/data", "-retentionPeriod=100y"]
        with running([*command, f"-httpListenAddr=127.0.0.1:{port}"], f"{url}/health", home / "log"):
            yield cls(url)

    def seen(self, bodies: list[bytes]) -> list[Seen]:
        taken = [ask(f"{self._url}/write?db=c{number}&precision=ns", body)[0] == 204 for number, body in enumerate(bodies)]
        ask(f"{self._url}/internal/force_flush")
        asked = urllib.parse.urlencode({"match[]": '{db!=""}', "start": 0, "end": int(time.time()) + 3600})
        _, answer = ask(f"{self._url}/api/v1/export?{asked}")
        samples: list[set[Point]] = [set() for _ in bodies]
        for line in answer.splitlines():
            series = json.loads(_INFINITE.sub("Infinity", line.decode("utf-8", "replace")))
            labels = series["metric"]
            number = int(labels.pop("db")[1:])
            name = labels.pop("__name__", "")
            for value, time_ms in zip(series["values"], series["timestamps"], strict=True):
                samples[number].add(point(name, tuple(sorted(labels.items())), {"": ("float", value)}, time_ms * 10**6))
        return [Seen(is_taken, frozenset(points)) for is_taken, points in zip(taken, samples, strict=True)]
