"""A server as a part of its service: how it starts, whom it lets connect, TLS, and what it shows."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from served import Client, answer, get, hello, serving
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import outlast
from outlast import ConfigurationError
from outlast.http import Limits, Server, Tls, Tokens
from outlast.http._server.installed import check

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync


async def start(server: Server) -> None:
    """Start a service with this server, and stop it."""
    service = outlast.Service("shop")
    server.attach(service)
    stop = outlast.Stop()
    service.on_start(stop_soon(stop))
    await service.run(stop)


def stop_soon(stop: outlast.Stop) -> Any:
    async def fire() -> None:
        asyncio.get_running_loop().call_soon(stop.fire, "started")

    return fire


@pytest.mark.parametrize("limit", ["headers_s", "pipelined_max", "write_bytes_max", "connections_max", "body_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "10"])
def test_a_limit_that_cannot_work_is_refused(limit: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{limit} must be a number above 0"):
        Limits(**{limit: value})


def test_a_limit_may_be_off_where_it_says_so() -> None:
    assert Limits(body_bytes_max=None, connections_max=None, connections_per_client_max=None).body_bytes_max is None
    with pytest.raises(ValueError, match="headers_s"):
        Limits(headers_s=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("listen", ["example.org:80", "127.0.0.1", "127.0.0.1:70000", "http://127.0.0.1:80", ":x"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="no address to listen on"):
        Server(hello, listen)


def test_other_machines_come_in_with_tokens_or_tls_or_when_it_is_said_so() -> None:
    with pytest.raises(ConfigurationError, match="open to other machines"):
        Server(hello, "0.0.0.0:8080")
    Server(hello, "0.0.0.0:8080", open_to_all=True)
    Server(hello, "0.0.0.0:8080", tls=Tls("certificate.pem", "key.pem"))
    Server(hello, "[::]:8080", tokens=Tokens(["reports read 2f7c0a5d9e1b4c3a8d6f"]))
    Server(hello, "[::1]:8080")


def test_a_server_belongs_to_one_service() -> None:
    server = Server(hello).attach(outlast.Service("shop"))
    with pytest.raises(ConfigurationError, match="part of shop already"):
        server.attach(outlast.Service("other"))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_port_0_takes_a_free_port(run_async: RunAsync, host: str) -> None:
    async def main() -> None:
        server = Server(hello, f"{host}:0")
        await start(server)
        assert server.port > 0
        assert server.url == f"http://{host}:{server.port}"

    run_async(main)


def test_a_port_that_is_taken_ends_the_start_with_the_next_step(run_async: RunAsync) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = Server(hello, f"127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(ConfigurationError, match="another process listens there"):
                await start(server)

    run_async(main)


def test_an_address_of_another_machine_ends_the_start(run_async: RunAsync) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="this machine has no such address"):
            await start(Server(hello, "192.0.2.1:0", open_to_all=True))

    run_async(main)


def test_a_service_with_a_server_can_run_again(run_async: RunAsync) -> None:
    async def main() -> None:
        service = outlast.Service("shop")
        server = Server(hello, "127.0.0.1:0").attach(service)
        for _ in range(2):
            stop = outlast.Stop()
            running = asyncio.create_task(service.run(stop))
            await service.until_ready()
            client = Client(*await asyncio.open_connection("127.0.0.1", server.port))
            client.send(get())
            assert (await client.answer()).status == 200
            stop.fire("enough")
            assert await client.rest() == b""
            client.writer.close()
            assert await running == 0

    run_async(main)


def test_an_answer_in_two_parts_waits_for_no_acknowledgement(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(hello) as served, await served.connect():
            await served.until(lambda: len(served.server._host.connections) == 1)
            (connection,) = served.server._host.connections
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run_async(main)


# The lifespan of the application.


def test_the_application_is_started_before_its_first_request_and_ended_after_its_last(run_async: RunAsync) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            scope["state"]["shop"] = "open"
            seen.append("startup")
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            seen.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
        else:
            seen.append(scope["state"]["shop"])
            await answer(send)
            seen.append("answered")

    async def main() -> None:
        async with serving(app) as served, await served.connect() as client:
            client.send(get())
            await client.answer()

    run_async(main)
    assert seen == ["startup", "open", "answered", "shutdown"]


def test_an_application_that_does_not_start_ends_the_start(run_async: RunAsync) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no shelf"})

    async def main() -> None:
        with pytest.raises(outlast.OutlastError, match="did not start: no shelf"):
            await start(Server(app, "127.0.0.1:0"))

    run_async(main)


@pytest.mark.parametrize("failed", [True, False], ids=["says so", "raises"])
def test_an_application_that_does_not_end_well_is_named(run_async: RunAsync, expected_logs: Any, *, failed: bool) -> None:
    expected_logs("failed", optional=not failed)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if failed:
            await send({"type": "lifespan.shutdown.failed", "message": "the till is open"})
        raise RuntimeError

    async def main() -> None:
        service = outlast.Service("shop")
        Server(app, "127.0.0.1:0").attach(service)
        stop = outlast.Stop()
        service.on_start(stop_soon(stop))
        assert await service.run(stop) == (75 if failed else 0)

    run_async(main)


# Who connects.


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(connections_max=2), "too many connections"),
        (Limits(connections_per_client_max=2), "too many connections of one client"),
    ],
)
def test_a_connection_beyond_the_bound_is_told_so(run_async: RunAsync, limits: Limits, code: str) -> None:
    async def main() -> None:
        async with serving(hello, limits=limits) as served, await served.connect() as first:
            async with await served.connect() as second:
                for client in (first, second):
                    client.send(get())
                    assert (await client.answer()).status == 200
                got = await served.ask(get())
                assert (got.status, got.code, got.headers["connection"], got.rest) == (503, code, "close", b"")
                assert int(got.headers["retry-after"]) >= 1
                assert served.cut == {code: 1}
            await served.until(lambda: served.open == 1)
            assert (await served.ask(get("/", "Connection: close"))).status == 200

    run_async(main)


def test_those_beyond_the_bound_who_stay_are_few(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(hello, limits=Limits(connections_max=1, drain_s=60.0)) as served, await served.connect() as first:
            first.send(get())
            await first.answer()
            others = [await served.connect() for _ in range(70)]
            await served.until(lambda: served.cut.get("connection dropped", 0) == 6)
            assert served.cut["too many connections"] == 64
            for other in others:
                other.writer.transport.abort()

    run_async(main)


def test_the_bound_leaves_files_for_others(run_async: RunAsync) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert Server(hello, limits=Limits(connections_max=None))._tally.connections_max == soft * 3 // 4


def test_it_shows_its_connections_and_what_it_cut(run_async: RunAsync) -> None:
    async def main() -> None:
        async with serving(hello, limits=Limits(drain_s=0.1)) as served, await served.connect() as client:
            client.send(get() + b"nonsense\r\n\r\n")
            await client.answer()
            await client.rest()
            await served.until(lambda: served.open == 0)
            figures = {figure.name: dict(figure.samples) for figure in served.server.figures()}
            assert figures["requests"] == {(): 1}
            assert figures["cut"] == {("malformed request",): 1}
            assert figures["open_connections"] == {(): 0}
            assert (served.server.lag(), served.server.acts()) == (None, [])
            health = served.server.health()
            assert (health.well, health.state) == (True, "serving")
        assert served.server.health().well is False

    run_async(main)


# TLS.


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return certificate, key


@pytest.mark.short
def test_tls_is_served_and_who_speaks_something_else_costs_no_line(run_async: RunAsync, pem: tuple[Path, Path]) -> None:
    async def main() -> None:
        context = ssl.create_default_context(cafile=pem[0])
        old = ssl.create_default_context(cafile=pem[0])
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(hello, tls=Tls(*pem, version_min=ssl.TLSVersion.TLSv1_3), limits=Limits(drain_s=0.1)) as served:
            assert served.server.url.startswith("https://127.0.0.1:")
            async with await served.connect(ssl=context) as client:
                for _ in range(2):
                    client.send(get())
                    assert (await client.answer()).body == b"ok"
                client.send(get("/" + "x" * 9_000))
                assert (await client.answer()).status == 414
                assert await client.rest() == b""
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await served.connect(ssl=old)
            async with await served.connect() as plain:
                plain.send(get())
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await plain.answer()
            await served.until(lambda: served.cut.get("tls handshake failed") == 2)
            await served.until(lambda: served.open == 0)

    run_async(main)


def test_a_handshake_that_does_not_end_is_cut(run_async: RunAsync, pem: tuple[Path, Path]) -> None:
    async def main() -> None:
        async with serving(hello, tls=Tls(*pem), limits=Limits(headers_s=0.1)) as served, await served.connect() as silent:
            assert await silent.rest() == b""
            await served.until(lambda: served.open == 0)
            assert served.cut == {"tls handshake failed": 1}

    run_async(main)


def test_with_tls_a_connection_beyond_the_bound_is_closed_without_a_handshake(
    run_async: RunAsync, pem: tuple[Path, Path]
) -> None:
    async def main() -> None:
        context = ssl.create_default_context(cafile=pem[0])
        async with serving(hello, tls=Tls(*pem), limits=Limits(connections_max=1)) as served:
            async with await served.connect(ssl=context) as first:
                async with await served.connect() as second:
                    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                        await second.reader.readexactly(1)
                first.send(get())
                assert (await first.answer()).status == 200
            assert served.cut == {"connection dropped": 1}

    run_async(main)


def test_a_stop_does_not_wait_for_a_handshake(run_async: RunAsync, pem: tuple[Path, Path]) -> None:
    async def main() -> None:
        async with serving(hello, tls=Tls(*pem)) as served, await served.connect() as silent:
            await served.until(lambda: served.open == 1)
            served.stop.fire("enough")
            assert await served.running == 0
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await silent.answer()

    run_async(main)


def test_a_stop_ends_connections_as_tls_ends_them(run_async: RunAsync, pem: tuple[Path, Path]) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await go.wait()
            await answer(send)

        context = ssl.create_default_context(cafile=pem[0])
        async with (
            serving(app, tls=Tls(*pem)) as served,
            await served.connect(ssl=context) as idle,
            await served.connect(ssl=context) as busy,
        ):
            busy.send(get())
            await served.until(lambda: served.server._tally.requests == 1)
            served.stop.fire("enough")
            assert await idle.rest() == b"", "the end, and no connection that broke"
            go.set()
            assert (await busy.answer()).headers["connection"] == "close"
            assert await busy.rest() == b""
            assert await served.running == 0

    run_async(main)


def test_clients_show_a_certificate_where_that_is_asked(run_async: RunAsync, pem: tuple[Path, Path]) -> None:
    async def main() -> None:
        context = ssl.create_default_context(cafile=pem[0])
        async with serving(hello, tls=Tls(*pem, clients=pem[0])) as served:
            # With TLS 1.3 the client learns of it after its own handshake.
            async with await served.connect(ssl=context) as client:
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await client.answer()
            context.load_cert_chain(*pem)
            async with await served.connect(ssl=context) as client:
                client.send(get())
                assert (await client.answer()).status == 200

    run_async(main)


def test_a_file_that_is_wrong_ends_the_start_and_is_named(run_async: RunAsync, pem: tuple[Path, Path], tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    certificate, key = pem

    async def main() -> None:
        for tls, message in (
            (Tls(tmp_path / "missing.pem", key), r"missing\.pem cannot be read \(No such file"),
            (Tls(certificate, tmp_path), r"cannot be read \(Is a directory"),
            (Tls(nonsense, key), r"nonsense\.pem and .*key\.pem are no certificate and its key"),
            (Tls(key, certificate), "are no certificate and its key"),
            (Tls(certificate, key, clients=nonsense), r"nonsense\.pem has no certificates"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                await start(Server(hello, "127.0.0.1:0", tls=tls))

    run_async(main)


def test_old_versions_of_tls_are_refused() -> None:
    with pytest.raises(ValueError, match="older ones are broken"):
        Tls("certificate.pem", "key.pem", version_min=ssl.TLSVersion.TLSv1_1)


# Files.


def test_no_file_left_for_a_connection_is_said_once_and_passes(run_async: RunAsync, expected_logs: Any) -> None:
    expected_logs("cannot accept connections: Too many open files")
    connect = "import socket, sys; s = [socket.create_connection(('127.0.0.1', int(sys.argv[1]))) for _ in range(30)]; input()"

    async def main() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with serving(hello) as served, await served.connect() as kept:
            crowd = await asyncio.create_subprocess_exec(
                sys.executable, "-c", connect, str(served.server.port), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            free = os.open("/dev/null", os.O_RDONLY)
            os.close(free)
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (free + 10, hard))
                await served.until(lambda: served.server._life.listener.paused >= 2)
                kept.send(get())
                assert (await kept.answer()).status == 200
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await crowd.communicate(b"\n")
            await served.until(lambda: served.open == 1)
            assert (await served.ask(get("/", "Connection: close"))).status == 200

    run_async(main)


# What it is built on.


def test_a_missing_package_is_named_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httptools", None)
    with pytest.raises(ImportError, match=r"needs uvicorn and httptools .*: pip install 'outlast\[server\]'"):
        check()


def test_a_uvicorn_that_has_changed_inside_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    check()
    monkeypatch.delattr(HttpToolsProtocol, "_start_asgi_task")
    with pytest.raises(ImportError, match=r"uvicorn \S+ is not one that outlast.http.Server knows \(_start_asgi_task\)"):
        check()
