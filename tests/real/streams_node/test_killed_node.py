"""kill -9 while clients create, append, fork, close and delete: what was answered is so, the rest is whole or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest
from http_producers import LOST, STREAM, connect, until
from node_process import NodeProcess
from served import get

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from served import Answer
    from served import Client as Connection

    from conftest import RunAsync

CLIENTS = 6
STEPS_MIN = 40
TEXT = "Content-Type: text/plain"
GONE = "deleted, with forks"

State = tuple[bytes, bool] | str | None
"""What a stream has and whether it is closed; `GONE`; None where there is none."""


@dataclass
class Worker:
    """A client with streams of its own; it knows what each of them may be."""

    name: str
    rng: Random
    states: dict[str, State] = field(default_factory=dict)
    doubt: dict[str, State] = field(default_factory=dict)
    """What else a stream may be, since the node ended before it answered."""
    lives: int = 0
    steps: int = 0
    """Requests that were answered."""

    async def run(self, port: int) -> None:
        """Work until the node ends."""
        try:
            async with await connect(port) as connection:
                while True:
                    await self.life(connection)
        except LOST:
            return

    async def life(self, connection: Connection) -> None:
        """Create a stream with its first bytes, and do some of what one can do with it."""
        self.lives += 1
        name = f"{self.name}/{self.lives}"
        fork = f"{name}/fork"
        await self.step(connection, "PUT", name, (b"first ", False), b"first ", status=201)
        await self.step(connection, "POST", name, (b"first second ", False), b"second ", status=204)
        if self.rng.random() < 0.5:
            forked = f"Stream-Forked-From: {STREAM}{name}"
            await self.step(connection, "PUT", fork, (b"first second own ", False), b"own ", forked, status=201)
        if self.rng.random() < 0.5:
            closed = (b"first second last", True)
            await self.step(connection, "POST", name, closed, b"last", "Stream-Closed: true", status=204)
        if self.rng.random() < 0.5:
            await self.step(connection, "DELETE", name, GONE if fork in self.states else None, status=204)
        if fork in self.states and self.rng.random() < 0.3:
            await self.step(connection, "DELETE", fork, None, status=204)

    async def step(
        self, connection: Connection, method: str, name: str, then: State, body: bytes = b"", *headers: str, status: int
    ) -> None:
        """Send one request; without an answer the stream is what it was, or what it was to be."""
        connection.send(get(STREAM + name, TEXT, f"Content-Length: {len(body)}", *headers, method=method) + body)
        try:
            answer = await connection.answer()
        except LOST:
            self.doubt[name] = then
            self.states.setdefault(name, None)
            raise
        assert answer.status == status, answer
        self.states[name] = then
        self.steps += 1

    async def check(self, port: int) -> None:
        """Compare what there is with what may be, and take it for what is."""
        async with await connect(port) as connection:
            found = {name: await self.ask(connection, name) for name in self.states}
        for name, state in self.states.items():
            may_be = {state, self.doubt.get(name, state)}
            if GONE in may_be and found.get(f"{name}/fork") is None:
                # It goes with the last of its forks, though not in the same step.
                may_be.add(None)
            assert found[name] in may_be, f"{name} is {found[name]}, and was to be one of {may_be}"
        self.states.update(found)
        self.doubt.clear()

    async def cleared(self, port: int) -> None:
        """Wait until nothing is left of streams that were deleted and whose forks were."""
        async with await connect(port) as connection:
            for name, state in self.states.items():
                if state == GONE and self.states[f"{name}/fork"] is None:
                    while await self.ask(connection, name) is not None:
                        await asyncio.sleep(0.05)

    async def ask(self, connection: Connection, name: str) -> State:
        connection.send(get(f"{STREAM}{name}"))
        return state_of(await connection.answer())


def state_of(answer: Answer) -> State:
    if answer.status == 404:
        return None
    if answer.status == 410:
        return GONE
    assert answer.status == 200, answer
    return answer.body, "stream-closed" in answer.headers


@pytest.mark.parametrize("rounds", [1, pytest.param(25, marks=pytest.mark.long)])
def test_what_a_killed_node_has_answered_is_so_and_the_rest_is_whole_or_not_at_all(
    run_async: RunAsync, tmp_path: Path, rounds: int
) -> None:
    workers = [Worker(f"w{number}", Random(number)) for number in range(CLIENTS)]

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.run(node.port))
            before = [worker.steps for worker in workers]
            await until(
                lambda: all(worker.steps > steps + STEPS_MIN // CLIENTS for worker, steps in zip(workers, before, strict=True))
            )
            node.kill()

    async def of_all(act: Callable[[Worker, int], Coroutine[None, None, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(act(worker, node.port))

    with NodeProcess(tmp_path) as node:
        for _ in range(rounds):
            run_async(main)
            node.start()
            run_async(lambda: of_all(Worker.check))
        run_async(lambda: of_all(Worker.cleared))
        node.process.terminate()
        assert (node.wait(), node.loud()) == (0, [])
