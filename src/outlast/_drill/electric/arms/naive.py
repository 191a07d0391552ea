"""The arm *naive* of the electric drill: whatever happens to the stream restarts the whole server, at once, forever."""

from __future__ import annotations

import asyncio

from outlast._drill.electric.arms.stream_service import StreamService
from outlast._drill.lab.arm.service import one_line


async def main() -> None:
    """Run the arm until SIGTERM."""
    service = StreamService("naive")
    while not service.stopping.is_set():
        try:
            await service.run(service.tick, service.stream)
        except ExceptionGroup as failed:
            service.log.error("replication client: %s", one_line(failed.exceptions[0]))  # noqa: TRY400
            service.log.error("terminating, the supervisor restarts the application")  # noqa: TRY400
            # The event loop gets a turn, or nothing would ever stop it.
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main())
