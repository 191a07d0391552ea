"""The arm *rakaia* of the fluvio drill: the server of `rakaia-streams` on its store of files, which syncs what it writes.

It is run as its own document says, by uvicorn; only the log of requests is off.
"""

from __future__ import annotations

import os
import signal
import sys

import uvicorn
from rakaia import JsonlStreamStore, create_app

from outlast._drill.fluvio.arms.log_server import LogSettings


class LineByLine:
    """Writes each line of a text by a call of its own, as the other arms do, whose writes are counted less their lines."""

    def write(self, text: str) -> int:
        """Write it on stderr."""
        for line in text.splitlines(keepends=True):
            os.write(2, line.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: all is written."""

    def isatty(self) -> bool:
        """Return False."""
        return False


def main() -> None:
    """Serve until SIGTERM."""
    settings = LogSettings.from_environment()
    host, _, port = settings.address.rpartition(":")
    sys.stderr = LineByLine()
    # uvicorn sends itself the signal again when all is done; a service ends with 0 then.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    app = create_app(JsonlStreamStore(settings.disk))
    uvicorn.run(app, host=host, port=int(port), loop="asyncio", lifespan="off", log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
