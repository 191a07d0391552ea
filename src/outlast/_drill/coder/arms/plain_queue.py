"""The job queue of the arms that have none of their own: one table, taken from with SKIP LOCKED."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outlast._drill.coder.arms.dialing_pool import DialingPool

CREATE = """
CREATE TABLE drill_jobs (
    id bigint PRIMARY KEY,
    state text NOT NULL DEFAULT 'ready',
    loop integer
);
CREATE INDEX drill_jobs_ready ON drill_jobs (id) WHERE state = 'ready';
"""

ENQUEUE = "INSERT INTO drill_jobs (id) SELECT generate_series(%(first)s::bigint, %(last)s::bigint)"

ACQUIRE = """
UPDATE drill_jobs SET state = 'running', loop = %(loop)s
 WHERE id = (SELECT id FROM drill_jobs WHERE state = 'ready' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING id
"""

COMPLETE = "UPDATE drill_jobs SET state = 'done' WHERE id = %(job)s"


async def acquire(pool: DialingPool, loop: int) -> int | None:
    """Take the next job, or None when there is none."""
    async with pool.connection() as conn:
        cursor = await conn.execute(ACQUIRE, {"loop": loop})
        row = await cursor.fetchone()
    return int(str(row[0])) if row else None


async def complete(pool: DialingPool, job: int) -> None:
    """Record that the job is done."""
    async with pool.connection() as conn:
        await conn.execute(COMPLETE, {"job": job})
