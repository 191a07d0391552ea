"""`HttpPeer` with real sockets: refused, reset, silent, slow and half answers, TLS; with httpx2 and with httpx."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from scripted_server import ScriptedServer

from outlast import Backoff, Fault, HealthPolicy, Kind, Scope, State, Unavailable
from outlast.extend import attached
from outlast.http import AnswerTooLargeError, HttpPeer
from outlast.testing import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from conftest import RunAsync

pytestmark = pytest.mark.expected_logs
FORGET_S = 1.1
"""Longer than a good answer to a probe holds."""


@contextlib.asynccontextmanager
async def peer_at(url: str, library: str, **options: Any) -> AsyncIterator[HttpPeer]:
    client = httpx.AsyncClient(trust_env=False, verify=options.pop("tls", True)) if library == "httpx" else None
    peer = HttpPeer(url, client=client, **options)
    try:
        yield peer
    finally:
        await peer.close()
        if client is not None:
            await client.aclose()


async def fault_of(call: Awaitable[object]) -> Fault:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the library's own, often
        await call
    fault = caught.value.fault if isinstance(caught.value, Unavailable) else attached(caught.value)
    assert fault is not None
    return fault


libraries = pytest.mark.parametrize("library", ["httpx2", "httpx"])


@libraries
@pytest.mark.short
def test_nobody_listens_and_then_somebody_does(run_async: RunAsync, library: str) -> None:
    async def main() -> None:
        server = ScriptedServer()
        server.listener.close()
        async with peer_at(server.url, library) as peer:
            fault = await fault_of(peer.get("/ok"))
            assert (fault.kind, fault.code, fault.scope) == (Kind.TRANSIENT, "ECONNREFUSED", Scope.DEPENDENCY)
            assert peer.state is State.DOWN
            again = ScriptedServer(port=server.port)
            async with again:
                await peer.ready()
                assert (await peer.get("/ok")).json() == {"well": True}
                assert again.counts()["HEAD"] == 1

    run_async(main)


@libraries
def test_a_name_that_does_not_resolve_may_resolve_later(
    run_async: RunAsync, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # Of no resolver: one that nobody reaches takes its time.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    async def main() -> None:
        async with peer_at("http://nowhere.invalid", library) as peer:
            fault = await fault_of(peer.get())
            assert (fault.kind, fault.code, peer.state) == (Kind.TRANSIENT, "EAI_NONAME", State.DOWN)
            assert fault.hint

    run_async(main)


@libraries
@pytest.mark.parametrize(
    ("path", "kind", "code"),
    [
        ("/reset", Kind.TRANSIENT, "ECONNRESET"),
        ("/half", Kind.TRANSIENT, "protocol"),
        ("/garbage", Kind.TRANSIENT, "protocol"),
        ("/slow", Kind.TRANSIENT, "timeout"),
        ("/drip", Kind.TRANSIENT, "timeout"),
        ("/status/500", Kind.TRANSIENT, "HTTP 500"),
    ],
)
def test_a_failure_is_the_calls_while_the_peer_answers_others_and_everyones_when_it_does_not(
    run_async: RunAsync, library: str, path: str, kind: Kind, code: str
) -> None:
    async def main() -> None:
        async with ScriptedServer() as server, peer_at(server.url, library, deadline_s=0.3) as peer:
            fault = await fault_of(peer.get(path))
            assert (fault.kind, fault.code, fault.scope, peer.state) == (kind, code, Scope.CALL, State.UP)
            assert (await peer.get("/ok")).status == 200
            await asyncio.sleep(FORGET_S)
            server.probe_status = 500
            fault = await fault_of(peer.get(path))
            assert (fault.kind, fault.code, fault.scope, peer.state) == (kind, code, Scope.DEPENDENCY, State.DOWN)

    run_async(main)


@libraries
def test_a_call_past_its_deadline_ends_its_connection_and_nothing_else(run_async: RunAsync, library: str) -> None:
    async def main() -> None:
        async with ScriptedServer() as server, peer_at(server.url, library, deadline_s=0.3) as peer:
            await peer.get("/ok")
            assert (len(server.connections), server.opened) == (1, 1)
            await fault_of(peer.get("/slow"))
            while server.working:
                await asyncio.sleep(0.01)
            await peer.get("/ok")
            assert server.opened == 2, "the probe dialled, and its connection serves the next call"
            assert [asked.headers["x-request-timeout"] for asked in server.asked if asked.path == "/slow"] == ["0.300"]

    run_async(main)


@libraries
def test_a_large_body_is_not_read_beyond_its_bound(run_async: RunAsync, library: str) -> None:
    async def main() -> None:
        async with ScriptedServer(big_bytes=2**26) as server, peer_at(server.url, library, body_bytes_max=2**16) as peer:
            with pytest.raises(AnswerTooLargeError):
                await peer.get("/big")
            while server.connections:
                await asyncio.sleep(0.01)
            assert peer.state is State.UP

    run_async(main)


@libraries
def test_a_stream_goes_on_while_the_peer_is_down(run_async: RunAsync, library: str) -> None:
    async def main() -> None:
        async with ScriptedServer() as server, peer_at(server.url, library) as peer, peer.stream("GET", "/drip") as answer:
            assert await answer.read()
            await fault_of(peer.get("/status/503/60"))
            assert peer.state is State.DOWN
            for _ in range(3):
                assert await answer.read()

    run_async(main)


def test_idle_connections_of_before_an_outage_are_given_up(run_async: RunAsync) -> None:
    async def main() -> None:
        async with ScriptedServer() as server, peer_at(server.url, "httpx2") as peer:
            await asyncio.gather(*(peer.get("/ok") for _ in range(3)))
            idle = set(server.connections)
            await fault_of(peer.get("/status/503"))
            while idle & server.connections:
                await asyncio.sleep(0.01)
            await peer.ready()
            await peer.get("/ok")

    run_async(main)


def test_a_probe_does_not_wait_for_calls_that_hang(run_async: RunAsync) -> None:
    async def main() -> None:
        async with ScriptedServer() as server, peer_at(server.url, "httpx2", connections_max=1) as peer:
            slow = asyncio.create_task(peer.get("/slow"))
            while not server.working:
                await asyncio.sleep(0.01)
            await peer.probe()
            slow.cancel()
            await asyncio.wait({slow})

    run_async(main)


@libraries
def test_those_who_wait_to_dial_do_not_when_the_first_is_refused(run_async: RunAsync, library: str) -> None:
    async def main() -> None:
        async with peer_at(f"http://127.0.0.1:{free_port()}", library) as peer:
            told = await asyncio.gather(*(peer.get("/ok") for _ in range(12)), return_exceptions=True)
            assert sum(isinstance(error, Unavailable) for error in told) >= 6
            assert {fault.code for error in told if (fault := attached(error))} == {"ECONNREFUSED"}

    run_async(main)


def test_the_environment_does_not_say_whom_to_ask(run_async: RunAsync, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    async def main() -> None:
        async with ScriptedServer() as server, peer_at(server.url, "httpx2") as peer:
            assert (await peer.get("/ok")).status == 200

    run_async(main)


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=peer", "-addext", "subjectAltName=IP:127.0.0.1", "-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(command, check=True, capture_output=True)
    return paths


def serving(certificate: tuple[Path, Path]) -> ScriptedServer:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    return ScriptedServer(tls=tls)


@libraries
def test_a_certificate_that_nobody_vouches_for_needs_a_person(
    run_async: RunAsync, library: str, certificate: tuple[Path, Path]
) -> None:
    async def main() -> None:
        async with serving(certificate) as server, peer_at(server.url, library) as peer:
            fault = await fault_of(peer.get("/ok"))
            assert (fault.kind, fault.code, fault.scope) == (Kind.PERMANENT, "certificate", Scope.DEPENDENCY)
            assert peer.state is State.DOWN
            assert "certificate" in fault.hint
            assert server.asked == []

    run_async(main)


@libraries
def test_with_its_authority_it_is_let_in(run_async: RunAsync, library: str, certificate: tuple[Path, Path]) -> None:
    async def main() -> None:
        tls = ssl.create_default_context(cafile=str(certificate[0]))
        async with serving(certificate) as server, peer_at(server.url, library, tls=tls) as peer:
            assert (await peer.get("/ok")).status == 200
            await peer.probe()

    run_async(main)


@libraries
def test_tls_to_a_port_that_speaks_none_needs_a_person(run_async: RunAsync, library: str) -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(plain, "127.0.0.1", port := free_port())
        async with server, peer_at(f"https://127.0.0.1:{port}", library) as peer:
            fault = await fault_of(peer.get("/ok"))
            assert (fault.kind, fault.code, fault.scope) == (Kind.PERMANENT, "tls", Scope.DEPENDENCY)
            assert fault.hint

    run_async(main)


def test_a_dial_that_nobody_answers_ends_by_its_own_limit(run_async: RunAsync) -> None:
    """TLS to a port that listens and says nothing: the handshake never ends."""

    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()
        left.set()

    async def main() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", port := free_port())
        async with server, peer_at(f"https://127.0.0.1:{port}", "httpx2", connect_timeout_s=0.3) as peer:
            fault = await fault_of(peer.get("/ok"))
            assert (fault.kind, fault.code, fault.scope) == (Kind.TRANSIENT, "timeout", Scope.DEPENDENCY)
            await left.wait()

    run_async(main)


def test_the_probe_obeys_a_retry_after_of_its_peer(run_async: RunAsync) -> None:
    async def main() -> None:
        policy = HealthPolicy(probe=Backoff(base_s=0.01, cap_s=0.02))
        async with ScriptedServer() as server, peer_at(server.url, "httpx2", policy=policy) as peer:
            await fault_of(peer.get("/status/503/3600"))
            await asyncio.sleep(0.3)
            assert server.counts()["HEAD"] == 0
            with pytest.raises(Unavailable) as refused:
                await peer.get("/ok")
            assert refused.value.retry_after_s > 3000
            assert len(server.asked) == 1

    run_async(main)
