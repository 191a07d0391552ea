"""The arm *capped* of the greptime drill: the service of the incident after its fix, by which at most 128 tasks run at a time."""

from __future__ import annotations

import asyncio
from typing import Final

from outlast._drill.greptime.arms.etcd_tasks import serve

RUNNING_MAX: Final = 128

if __name__ == "__main__":
    asyncio.run(serve("capped", RUNNING_MAX))
