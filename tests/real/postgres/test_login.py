"""The probe logs in where the driver does, and nowhere else: TLS, passwords, sockets, options, services."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from outlast import Classifiers, Fault, Kind
from outlast.postgres import Postgres
from outlast.postgres._dsn import Dsn
from outlast.postgres._login.probe import probe
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HBA = """
local all all trust
hostssl all secure 127.0.0.1/32 trust
hostnossl all open 127.0.0.1/32 trust
host all accented 127.0.0.1/32 scram-sha-256
host all postgres 127.0.0.1/32 trust
"""
PASSWORD = "Ⅸ ½\u00a0ﬁne\u00ad!"
"""SASLprep changes five of its characters: a probe that did not would be refused where the driver is let in."""


def run_sql(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, Path]]:
    """A server with TLS, if there is an openssl to make it a certificate; and that certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    with PostgresServer() as server:
        roles = ("CREATE ROLE secure LOGIN", "CREATE ROLE open LOGIN", f"CREATE ROLE accented LOGIN PASSWORD '{PASSWORD}'")
        run_sql(server.dsn(), *roles)
        certificate, key = server.data / "server.crt", server.data / "server.key"
        command = (
            "openssl req -new -x509 -days 2 -nodes -newkey rsa:2048 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        )
        subprocess.run([*command.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True, timeout=60)
        for path in (certificate, key):
            shutil.chown(path, *((server.data.owner(), server.data.group())))
            path.chmod(0o600)
        root = tmp_path_factory.mktemp("tls") / "root.crt"
        root.write_bytes(certificate.read_bytes())
        (server.data / "pg_hba.conf").write_text(HBA, encoding="utf-8")
        server.settings["ssl"] = "on"
        server.restart()
        yield server, root


@pytest.fixture(autouse=True)
def nothing_of_this_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGPASSWORD", "PGUSER", "PGHOST", "PGSSLMODE", "PGOPTIONS", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


def told(dsn: str) -> Fault | None:
    try:
        asyncio.run(probe(Dsn.parse(dsn)))
    except Exception as exc:  # noqa: BLE001 - that it is classified is the test
        return Classifiers().classify(exc)
    return None


def driver_gets_in(dsn: str) -> bool:
    try:
        run_sql(dsn, "SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


@pytest.mark.parametrize("user", ["secure", "open", "postgres"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("with_root", [False, True])
def test_the_probe_gets_in_exactly_where_the_driver_does(
    secure: tuple[PostgresServer, Path], user: str, mode: str, *, with_root: bool
) -> None:
    server, root = secure
    for host in ("host=127.0.0.1", "host=localhost hostaddr=127.0.0.1"):
        dsn = f"{host} port={server.port} user={user} dbname=postgres sslmode={mode}"
        if with_root:
            dsn += f" sslrootcert={root}"
        fault = told(dsn)
        assert (fault is None) == driver_gets_in(dsn), (dsn, fault)
        if fault is not None:
            assert fault.kind is Kind.PERMANENT, fault
            assert fault.hint


@pytest.mark.short
@pytest.mark.parametrize("mode", MODES)
def test_a_server_without_tls(server: PostgresServer, mode: str) -> None:
    fault = told(f"{server.dsn()}?sslmode={mode}")
    if mode in {"disable", "allow", "prefer"}:
        assert fault is None
    else:
        assert fault is not None
        assert (fault.kind, fault.code) == (Kind.PERMANENT, "tls")
        assert mode in fault.reason


def test_a_password_that_is_no_ascii(secure: tuple[PostgresServer, Path]) -> None:
    server, _ = secure
    dsn = psycopg.conninfo.make_conninfo(host="127.0.0.1", port=server.port, user="accented", dbname="postgres")
    for password, right in ((PASSWORD, True), ("IX 1⁄2 fine!", True), ("IX", False)):
        with_password = psycopg.conninfo.make_conninfo(dsn, password=password)
        assert driver_gets_in(with_password) == right
        fault = told(with_password)
        assert (fault is None) == right
        assert fault is None or fault.code == "28P01"


@pytest.mark.short
def test_a_unix_socket(server: PostgresServer) -> None:
    assert told(f"host={server.directory} port={server.port} user=postgres dbname=postgres") is None
    fault = told(f"host={server.directory}/missing port={server.port} user=postgres dbname=postgres")
    assert fault is not None
    assert (fault.kind, fault.code) == (Kind.TRANSIENT, "ENOENT")


@pytest.mark.short
def test_options_of_the_dsn_count_for_the_probe(server: PostgresServer) -> None:
    run_sql(server.dsn(), "ALTER ROLE postgres SET default_transaction_read_only = on")
    fault = told(server.dsn())
    assert fault is not None
    assert fault.code == "25006"
    assert told(f"{server.dsn()}?options=-c%20default_transaction_read_only%3Doff") is None
    wrong = told(f"{server.dsn()}?options=-c%20no_such_setting%3Doff")
    assert wrong is not None
    assert (wrong.kind, wrong.code, wrong.is_evidence) == (Kind.PERMANENT, "42704", True)


@pytest.mark.short
def test_a_service_is_probed_by_the_driver(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = tmp_path / "services"
    services.write_text(f"[shop]\nhost=127.0.0.1\nport={server.port}\nuser=postgres\ndbname=postgres\n", encoding="utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(services))

    async def main() -> None:
        db = Postgres("service=shop")
        await db.probe()
        run_sql(server.dsn(), "ALTER ROLE postgres SET default_transaction_read_only = on")
        with pytest.raises(ConnectionError, match="read-only"):
            await db.probe()
        await db.close()

    asyncio.run(main())
