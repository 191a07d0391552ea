"""SIGTERM, and attacks, with hundreds of clients: all of them see an end, others are served, and nobody says a word."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest
from crowd import Crowd
from crowded_shop import app
from served import get, serving

from outlast.http import Limits

if TYPE_CHECKING:
    from conftest import RunAsync


def test_a_stop_with_hundreds_who_wait_is_clean_and_quiet(run_async: RunAsync) -> None:
    async def main() -> None:
        crowd = Crowd()
        ended = await crowd.round(after_s=0.2)
        assert (ended.code, ended.loud) == (0, [])
        assert ended.polls == {"204, then the end": crowd.polls}
        assert ended.streams == {"last chunk, then the end": crowd.streams}
        assert ended.load == {"refused": crowd.load}
        assert ended.trouble == {"the end": 6 * crowd.trouble}

    run_async(main, limit_s=120)


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (["-H", "-i", "1"], "headers too slow"),
        (["-B", "-i", "1", "-s", "8192"], "body too slow"),
        (["-X", "-w", "1", "-y", "1", "-n", "1", "-z", "1"], "reader too slow"),
    ],
    ids=["slow headers", "slow bodies", "slow readers"],
)
def test_slow_clients_by_the_hundred_are_cut_while_others_are_served(run_async: RunAsync, attack: list[str], code: str) -> None:
    program = shutil.which("slowhttptest")
    if program is None:
        pytest.skip("slowhttptest is not installed")

    async def main() -> None:
        limits = Limits(headers_s=1.0, body_s=1.0, write_s=1.0)
        async with serving(app, limits=limits) as served:
            path = "/big" if code == "reader too slow" else "/order"
            command = [str(program), *attack, "-c", "100", "-r", "100", "-l", "20", "-u", f"{served.server.url}{path}"]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            await served.until(lambda: served.open > 50)
            assert (await served.ask(get("/order", "Connection: close"))).status == 200
            await served.until(lambda: served.cut.get(code, 0) > 50)
            assert (await served.ask(get("/order", "Connection: close"))).status == 200
            process.terminate()
            await process.wait()
            await served.until(lambda: served.open == 0)
            assert set(served.cut) <= {code, "idle"}

    run_async(main)
