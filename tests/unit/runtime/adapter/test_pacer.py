"""The moments at which connections may begin, in virtual time."""

from __future__ import annotations

import asyncio

from outlast.extend import Pacer
from outlast.testing import run_virtual


def test_sixty_who_ask_at_once_begin_eight_in_any_tenth_of_a_second_and_in_order() -> None:
    begun: list[tuple[float, int]] = []

    async def main() -> None:
        pacer, loop = Pacer(), asyncio.get_running_loop()

        async def dial(number: int) -> None:
            await pacer.turn()
            begun.append((loop.time(), number))

        await asyncio.gather(*(dial(number) for number in range(60)))

    run_virtual(main())
    moments = [at for at, _ in begun]
    assert [number for _, number in begun] == list(range(60))
    assert max(sum(at <= other < at + 0.0999 for other in moments) for at in moments) == 8


def test_who_comes_late_waits_for_nobody() -> None:
    async def main() -> None:
        pacer, loop = Pacer(), asyncio.get_running_loop()
        await pacer.turn()
        await asyncio.sleep(1.0)
        before = loop.time()
        await pacer.turn()
        assert loop.time() == before

    run_virtual(main())
