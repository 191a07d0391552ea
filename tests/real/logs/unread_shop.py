"""A service that logs what it does, for tests in which nobody reads its log. The file `COUNT` takes how much it has done."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import sys

import outlast

service = outlast.Service("shop", deadline_s=5.0)
log = logging.getLogger("shop")
NUMBERS = itertools.islice(itertools.count(1), int(os.environ["UNITS"]))
COUNT = os.open(os.environ["COUNT"], os.O_WRONLY)


@service.loop()
async def work(stop: outlast.Stop) -> None:
    """Do 50 units: each writes a line of INFO, every tenth a WARNING besides."""
    for number in itertools.islice(NUMBERS, 50):
        log.info("unit %d", number)
        if number % 10 == 0:
            log.warning("slow unit %d", number)
        os.pwrite(COUNT, b"%d" % number, 0)
    await stop.sleep(0.01)


if os.environ.get("PRINTS"):

    @service.loop()
    async def prints(stop: outlast.Stop) -> None:
        """Stand in a print as soon as nobody reads."""
        await stop.sleep(0.2)
        while True:
            sys.stdout.write("x" * 1000)


if os.environ.get("HOOK"):
    atexit.register(os.pwrite, COUNT, b"the hook has run", 0)

if os.environ.get("BASIC"):
    logging.basicConfig(level=logging.INFO)
