"""A cluster without its majority, and one that is asked by TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from outlast import Kind, Scope, State, Unavailable
from outlast.etcd import Etcd
from outlast.extend import attached
from outlast.testing import EtcdServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunAsync


@pytest.fixture
def pair() -> Iterator[list[EtcdServer]]:
    """Two members of one cluster, described and not started: either of them alone is no majority."""
    peers = {name: f"http://127.0.0.1:{free_port()}" for name in ("one", "two")}
    cluster = ",".join(f"{name}={url}" for name, url in peers.items())
    members = [
        EtcdServer(
            settings={
                "name": name,
                "initial-cluster": cluster,
                "listen-peer-urls": url,
                "initial-advertise-peer-urls": url,
                "heartbeat-interval": "100",
                "election-timeout": "1000",
            }
        )
        for name, url in peers.items()
    ]
    yield members
    for each in members:
        each.remove()


@pytest.mark.expected_logs
def test_a_member_without_a_majority_serves_nobody_until_it_is_back(pair: list[EtcdServer], run_async: RunAsync) -> None:
    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(each.start) for each in pair))
        adapter = Etcd([each.url for each in pair], timeout_s=1.0)
        before = await adapter.put(b"a", b"1")
        pair[1].kill()
        # Either is tried; what is left has no majority.
        for _ in range(3):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - the library's own
                await adapter.put(b"a", b"2")
            if adapter.state is State.DOWN:
                break
        assert adapter.state is State.DOWN
        fault = caught.value.fault if isinstance(caught.value, Unavailable) else attached(caught.value)
        assert fault is not None
        assert (fault.kind, fault.scope) == (Kind.TRANSIENT, Scope.DEPENDENCY)
        await asyncio.to_thread(pair[1].start)
        await adapter.ready()
        found = await adapter.get(b"a")
        assert found is not None
        assert found.mod_revision >= before
        await adapter.close()

    run_async(main)


@pytest.mark.expected_logs
def test_it_is_asked_by_tls(run_async: RunAsync, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    certificate, key, port = tmp_path / "server.crt", tmp_path / "server.key", free_port()
    command = "openssl req -new -x509 -days 2 -nodes -newkey rsa:2048 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True, timeout=60)
    server = EtcdServer()
    tls = f"https://127.0.0.1:{port}"
    server.settings |= {"listen-client-urls": f"{server.url},{tls}", "cert-file": str(certificate), "key-file": str(key)}

    async def main() -> None:
        trusting = Etcd(f"https://localhost:{port}", tls=ssl.create_default_context(cafile=certificate))
        revision = await trusting.put(b"a", b"1")
        async with trusting.watch(b"a", after=revision - 1) as watch:
            assert (await anext(watch)).revision == revision
        await trusting.close()
        strange = Etcd(f"https://localhost:{port}")
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the library's own
            await strange.get(b"a")
        fault = attached(caught.value)
        assert fault is not None
        assert (fault.kind, fault.code) == (Kind.PERMANENT, "certificate")
        await strange.close()

    with server:
        run_async(main)
