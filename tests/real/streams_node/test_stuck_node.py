"""A node whose disk never answers again: it ends within its deadline, and nobody is left without an answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from http_producers import append, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from served import Answer

    from conftest import RunAsync

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
END_S_MAX = 60.0
"""Far beyond the deadline of the service, for a busy machine."""


def test_a_thread_that_hangs_does_not_hold_up_the_end_and_its_requests_are_told_that_nobody_knows(run_async: RunAsync) -> None:
    async def main(port: int, wait_for_hang: Callable[[], str], stop: Callable[[], None]) -> tuple[Answer, Answer]:
        async with AsyncExitStack() as stack:
            stuck, queued = [await stack.enter_async_context(await connect(port)) for _ in range(2)]
            stuck.send(append("orders", b"stuck"))
            await asyncio.to_thread(wait_for_hang)
            queued.send(append("orders", b"queued"))
            stop()
            return await stuck.answer(), await queued.answer()

    folders = (ROOT / "src", ROOT / "tests", ROOT / "tests" / "unit" / "streams")
    with subprocess.Popen(
        [sys.executable, HERE / "stuck_node.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            stuck, queued = run_async(
                lambda: main(port, process.stdout.readline, lambda: process.send_signal(signal.SIGTERM))  # type: ignore[union-attr]
            )
            _, log = process.communicate(timeout=END_S_MAX)
        finally:
            process.kill()
    assert (stuck.status, stuck.code) == (504, "outcome unknown"), log
    # Nothing was done for this one: it is told so, or, by who cannot tell the two apart, that nobody knows.
    assert (queued.status, queued.code) in {(503, "stopping"), (504, "outcome unknown")}, log
    assert process.returncode in (0, 75), log
    assert "Traceback" not in log
