"""The peers of bench/streams.py, each with one way to store a batch, a single record, and records of many at a time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from outlast.streams import Streams
from outlast.testing import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

NATS_PROGRAM: Final = Path(sys.executable).parent / "nats-server"
NATS_PENDING: Final = 1000
"""Messages of a batch that may wait for their acknowledgement at a time."""


class Peer(Protocol):
    """Stores records; each call returns when they are as durable as the peer makes them."""

    name: str

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def batch(self, records: Sequence[bytes]) -> None: ...

    async def single(self, record: bytes) -> None: ...


class Raw:
    """`os.write` and `fdatasync` of bytes that are joined already, in this thread: the least that a durable append costs."""

    name = "raw write + fdatasync"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "raw"
        self._descriptor = -1
        self._joined: tuple[int, bytes] = (0, b"")

    async def __aenter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)
        self._path.unlink()

    def join(self, records: Sequence[bytes]) -> None:
        """Join a batch before the clock runs."""
        self._joined = (id(records), b"".join(records))

    async def batch(self, records: Sequence[bytes]) -> None:
        assert self._joined[0] == id(records), "it was to be joined before"
        self._store(self._joined[1])

    async def single(self, record: bytes) -> None:
        self._store(record)

    def _store(self, data: bytes) -> None:
        written = os.write(self._descriptor, data)
        assert written == len(data)
        os.fdatasync(self._descriptor)


class Outlast:
    """A stream of `outlast.streams` that is synced with each batch."""

    name = "outlast"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "outlast"
        self._streams: Any = None
        self.stream: Any = None

    async def __aenter__(self) -> Self:
        self.folder.mkdir()
        self._streams = await Streams(self.folder).__aenter__()
        self.stream = await self._streams.create("bench")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        await self._streams.__aexit__(kind, exc, trace)

    async def batch(self, records: Sequence[bytes]) -> None:
        await self.stream.append(records)

    async def single(self, record: bytes) -> None:
        await self.stream.append(record)


class Sqlite:
    """A table of SQLite in WAL mode with `synchronous=FULL`: each transaction is synced."""

    name = "SQLite WAL FULL"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "records.sqlite"
        self._connection: Any = None

    async def __aenter__(self) -> Self:
        import apsw

        self._connection = apsw.Connection(str(self._path))
        self._connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE records (position INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()
        self._path.unlink()

    async def batch(self, records: Sequence[bytes]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO records (data) VALUES (?)", ((record,) for record in records))
        self._connection.execute("COMMIT")

    async def single(self, record: bytes) -> None:
        self._connection.execute("INSERT INTO records (data) VALUES (?)", (record,))


async def accepts(port: int) -> bool:
    """Return whether somebody listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


class Nats:
    """A JetStream stream in files, of a `nats-server` on the loopback. `sync` is its `sync_interval`; None: 2 minutes."""

    def __init__(self, folder: Path, sync: str | None) -> None:
        self.name = f"NATS sync {sync or 'default'}"
        self._folder = folder / f"nats-{sync or 'default'}"
        self._sync = sync
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None
        self._streams: Any = None

    async def __aenter__(self) -> Self:
        import nats

        self._folder.mkdir()
        port, config = free_port(), self._folder / "server.conf"
        sync = f"sync_interval: {self._sync}" if self._sync else ""
        config.write_text(
            f'host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: "{self._folder}"\n {sync} }}\n', encoding="utf-8"
        )
        with (self._folder / "log").open("wb") as log:
            command = [NATS_PROGRAM, "-c", config]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220 - nothing else runs yet
        while not await accepts(port):
            assert self._process.poll() is None, (self._folder / "log").read_text(encoding="utf-8")
            await asyncio.sleep(0.05)
        self._client = await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
        self._streams = self._client.jetstream(publish_async_max_pending=NATS_PENDING)
        await self._streams.add_stream(name="bench", subjects=["bench"])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if self._client is not None:
            await self._client.close()
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    async def batch(self, records: Sequence[bytes]) -> None:
        answers = [await self._streams.publish_async("bench", record, wait_stall=60.0) for record in records]
        for answer in answers:
            await answer

    async def single(self, record: bytes) -> None:
        await self._streams.publish("bench", record)
