"""The arm *outlast* of the fluvio drill: `outlast.streams` with its default settings, in a service."""

from __future__ import annotations

import sys

import outlast
from outlast._drill.fluvio.arms.log_server import LogServer, LogSettings, UnknownOutcome
from outlast.extend import attached
from outlast.streams import OutcomeUnknownError, Stream, Streams

NAME = "drill"
"""Of the stream."""


class StreamLog:
    """Keeps the records in a stream. A client is told the kind of error and its code, as a program would read them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def append(self, record: bytes) -> int:
        """Append it."""
        try:
            return (await self._stream.append(record)).first
        except OutcomeUnknownError as exc:
            raise UnknownOutcome(str(exc)) from exc
        except outlast.OutlastError as exc:
            raise _told(exc) from exc

    async def read(self, position: int) -> bytes:
        """Read it."""
        chunk = await self._stream.fetch(position, bytes_max=1)
        return next(iter(chunk)).data


def _told(exc: outlast.OutlastError) -> Exception:
    fault = exc.fault if isinstance(exc, outlast.Unavailable) else attached(exc)
    return RuntimeError(f"{type(exc).__name__} {fault.kind.value}: {fault.code}" if fault else type(exc).__name__)


def build(settings: LogSettings) -> outlast.Service:
    """Return the service: its streams, and the server, which needs no disk to answer readers."""
    streams = Streams(settings.disk)
    service = outlast.Service("drill")
    streams.attach(service)

    @service.task()
    async def serve(stop: outlast.Stop) -> None:
        stream = await streams.create(NAME, exist_ok=True)
        await LogServer(StreamLog(stream)).serve(settings.address, stop.wait)

    return service


if __name__ == "__main__":
    sys.exit(outlast.run(build(LogSettings.from_environment())))
