"""A good key among thousands that fail, each for its own reason: `_procedures_keys.py FOLDER COUNT` prints what it found as JSON.

The procedures lie in a SQLite file. In each of 20 turns good keys are submitted and waited for, one after the other, once with
nothing else to do and once while failing keys are submitted 2,000 times a second.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path

import outlast
from outlast import Fault, Kind, OutlastError
from outlast.procedures import Procedure, ProcedureRefused, Procedures, Run
from outlast.sqlite import Sqlite

TURNS = 20
GOOD = 10
"""Good keys in each half of a turn."""
TICK_S, AT_ONCE = 0.01, 20
"""So many failing keys are submitted every ten milliseconds."""
WORK_S = 0.005


def table() -> Procedure:
    make = Procedure("make", attempts_max=1)

    @make.step
    async def allocate(run: Run) -> int:
        if run.key.startswith("bad"):
            raise OutlastError("no", Fault(Kind.PERMANENT, f"E-{run.key}", "its own reason", source="metasrv"))
        await asyncio.sleep(WORK_S)
        return 1

    return make


class Keys:
    def __init__(self, procedures: Procedures, bad: int) -> None:
        self.procedures = procedures
        self.bad = bad
        self.good = 0
        self.next_bad = 0
        self.refused = 0
        self.good_refused = 0

    async def good_s(self) -> float:
        """Return the median of the seconds that a good key takes."""
        found = list[float]()
        for _ in range(GOOD):
            self.good += 1
            begun = time.perf_counter()
            try:
                handle = await self.procedures.submit("make", f"good-{self.good}")
                await handle.wait()
            except ProcedureRefused:
                self.good_refused += 1
            found.append(time.perf_counter() - begun)
        return statistics.median(found)

    async def submit_bad(self) -> None:
        """Submit failing keys, one after the other, until cancelled."""
        while True:
            for _ in range(AT_ONCE):
                self.next_bad = (self.next_bad + 1) % self.bad
                try:
                    await self.procedures.submit("make", f"bad-{self.next_bad}")
                except ProcedureRefused:
                    self.refused += 1
            await asyncio.sleep(TICK_S)


async def measure(folder: Path, bad: int) -> dict[str, object]:
    db = Sqlite(folder / "work.db")
    procedures = Procedures(db, [table()], journal_path=folder / "journal")
    service, stop = outlast.Service("bench"), outlast.Stop()
    procedures.attach(service)
    running = asyncio.create_task(service.run(stop))
    while not service.ready:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.gather(*(procedures.submit("make", f"bad-{number}") for number in range(bad)))
    while procedures.tally.ended["dead"] < bad:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    keys, ratios, usual = Keys(procedures, bad), list[float](), list[float]()
    begun = time.perf_counter()
    for _ in range(TURNS):
        usual.append(await keys.good_s())
        busy = asyncio.create_task(keys.submit_bad())
        ratios.append(await keys.good_s() / usual[-1])
        busy.cancel()
        with suppress(asyncio.CancelledError):
            await busy
    submitted = procedures.tally.submitted - bad - keys.good
    found = {
        "ratios": ratios,
        "usual_s": statistics.median(usual),
        "refused": keys.refused,
        "good_refused": keys.good_refused,
        "probes": submitted,
        "probes_per_s": submitted / (time.perf_counter() - begun),
    }
    stop.fire("measured")
    await running
    await db.close()
    return found


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(asyncio.run(measure(Path(sys.argv[1]), int(sys.argv[2])))))
