"""A service whose work is large, for a process with little memory. The test says what it does: `flood`, `rush` or `cache`.

It prints one line of JSON when it has come to an end, if it does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import outlast
from outlast.admission import Criticality, Memory, Reason, Refusal, Refused

MIB = 2**20
PIECE_BYTES = 4 * MIB
PIECES = 600
"""2.3 GiB of work, nine times what there is."""
FILE_BYTES = 200 * MIB

service = outlast.Service("hungry", deadline_s=2.0)
counts = dict.fromkeys(["served", "refused", "for another reason", "critical", "critical refused"], 0)


def admission_for(mode: str) -> outlast.Admission | None:
    """Return one that looks at nothing but the memory; none at all for a service without."""
    if mode == "none":
        return None
    found = outlast.Admission("hungry", concurrency=None, memory=Memory())
    found.attach(service)
    return found


async def piece(admission: outlast.Admission | None, size_bytes: int, hold_s: float) -> None:
    """Do one piece of work: fill the memory it needs, and keep it for a while."""
    if admission is None:
        await use(hold_s)
        return
    try:
        async with admission.enter(size_bytes=size_bytes):
            await use(hold_s)
    except Refused as refusal:
        counts["refused"] += 1
        counts["for another reason"] += refusal.reason is not Reason.MEMORY


async def use(hold_s: float) -> None:
    held = bytearray(PIECE_BYTES)
    # One byte a page makes the kernel find it.
    held[::4096] = b"x" * len(range(0, PIECE_BYTES, 4096))
    await asyncio.sleep(hold_s)
    counts["served"] += 1


async def rush(admission: outlast.Admission | None) -> None:
    """Come all at once, between two samples; each says its size."""
    async with asyncio.TaskGroup() as group:
        for _ in range(PIECES):
            group.create_task(piece(admission, PIECE_BYTES, 1.0))
    for _ in range(3):
        await piece(admission, PIECE_BYTES, 0.0)
        await asyncio.sleep(1.0)


async def flood(admission: outlast.Admission | None) -> None:
    """Come at a steady 50 MiB a second, and say no size; each keeps its memory for six seconds. Deletes come all the while."""
    async with asyncio.TaskGroup() as group:
        for index in range(120):
            group.create_task(piece(admission, 0, 6.0))
            if admission is not None and index % 10 == 0:
                got = admission.try_enter(criticality=Criticality.CRITICAL)
                if isinstance(got, Refusal):
                    counts["critical refused"] += 1
                else:
                    got.release()
                    counts["critical"] += 1
            await asyncio.sleep(0.08)


async def cache(admission: outlast.Admission | None) -> None:
    """Write a file of most of the memory there is and read it three times, which makes its pages active; ask all the while."""
    assert admission is not None
    file = os.open(sys.argv[3], os.O_CREAT | os.O_RDWR)
    for _ in range(FILE_BYTES // MIB):
        os.write(file, bytes(MIB))
        await ask(admission)
    for _ in range(3):
        os.lseek(file, 0, os.SEEK_SET)
        while os.read(file, MIB):
            await ask(admission)
        await asyncio.sleep(0.5)
    os.close(file)
    await ask(admission)


async def ask(admission: outlast.Admission) -> None:
    got = admission.try_enter(criticality=Criticality.SHEDDABLE)
    if isinstance(got, Refusal):
        counts["refused"] += 1
    else:
        got.release()
        counts["served"] += 1
    await asyncio.sleep(0.001)


@service.task(name="work")
async def work(stop: outlast.Stop) -> None:
    await {"rush": rush, "flood": flood, "cache": cache}[sys.argv[1]](admission)
    os.write(1, json.dumps(counts).encode())
    stop.fire("done")


admission = admission_for(sys.argv[2])
sys.exit(outlast.run(service))
