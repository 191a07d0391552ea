"""The arm *naive* of the greptime drill: each write to a table that is not there records one more task in etcd."""

from __future__ import annotations

import asyncio

from outlast._drill.greptime.arms.etcd_tasks import serve

if __name__ == "__main__":
    asyncio.run(serve("naive", None))
