"""The arm *backoff* of the electric drill: the stream alone is retried after 2, 4, 8, 10 s, and a login resets the wait.

The login succeeds while the slot is taken, so the wait never grows: what is promised by the sequence does not come true.
"""

from __future__ import annotations

import asyncio

from outlast._drill.electric.arms.stream_service import StreamService
from outlast._drill.lab.arm.service import one_line

WAITS_S = (2.0, 4.0, 8.0, 10.0)


async def main() -> None:
    """Run the arm until SIGTERM."""
    service = StreamService("backoff")
    failures = 0

    def reset() -> None:
        nonlocal failures
        failures = 0

    async def keep_streaming() -> None:
        nonlocal failures
        while True:
            try:
                await service.stream(reset)
            except Exception as exc:  # noqa: BLE001  a retry around everything
                wait_s = WAITS_S[min(failures, len(WAITS_S) - 1)]
                failures += 1
                service.log.warning("stream: %s; again in %g s", one_line(exc), wait_s)
                await asyncio.sleep(wait_s)

    await service.run(service.tick, keep_streaming)


if __name__ == "__main__":
    asyncio.run(main())
