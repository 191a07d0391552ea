"""A store of streams as a program that is killed: clients that append, and a line on standard output for each answer.

    python killed_store.py FOLDER '{"p0": [sequence, number], ...}'

Each client begins with the attempt that is named, which may be stored already. A line is `+ producer sequence number position`
for what is acknowledged, `-` for what was refused, `?` for what is not known; it is written before the client goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import TYPE_CHECKING

from streams_ledger import Attempt, Client, Ledger

from outlast.streams import Appended, OutcomeUnknownError, StreamOptions, Streams

if TYPE_CHECKING:
    from outlast.streams import Stream

STREAMS = 2


def tell(attempt: Attempt, answer: Appended | Exception) -> None:
    """Write the line of an answer: it has left this process when this returns."""
    if isinstance(answer, Appended):
        sign, position = "+", answer.first
    else:
        sign, position = "?" if isinstance(answer, OutcomeUnknownError) else "-", -1
    os.write(1, f"{sign} {attempt.producer} {attempt.sequence} {attempt.number} {position}\n".encode())


async def main(folder: str, begin: dict[str, tuple[int, int]]) -> None:
    """Append until the process is killed."""
    ledger = Ledger()
    async with Streams(folder) as streams, asyncio.TaskGroup() as group:
        options = StreamOptions(segment_bytes=256 * 1024)
        used: list[Stream] = [await streams.create(f"s{number}", options, exist_ok=True) for number in range(STREAMS)]
        for number, (name, (sequence, attempt)) in enumerate(begin.items()):
            ledger.unknown.add(Attempt(name, sequence, attempt))
            client = Client(name, used[number % STREAMS], ledger, sequence=sequence, number=attempt, on_answer=tell)
            group.create_task(client.run())


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
