"""A service whose loops all want a row that somebody else has locked; the tests run it as a process of its own."""

from __future__ import annotations

import os
import sys

import outlast
from outlast.postgres import Postgres

db = Postgres(os.environ["ROWS_DSN"], connections_max=10, operation_timeout_s=float(os.environ["ROWS_DEADLINE_S"]))
service = outlast.Service("rows", deadline_s=3.0)


@service.loop(needs=db, workers=10, backoff=outlast.Backoff(0.05, 0.1))
async def settle(stop: outlast.Stop) -> None:
    """Update the row."""
    async with db.connection() as conn:
        await conn.execute("UPDATE orders SET total = total + 1 WHERE id = 1")


if __name__ == "__main__":
    code = outlast.run(service)
    sys.stderr.write(f"cancel requests: {db.cancels}\n")
    sys.exit(code)
