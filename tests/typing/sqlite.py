"""A SQLite file, as a service that keeps its work in it uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, assert_type

import outlast
from outlast.extend import Levels
from outlast.sqlite import Sqlite, SqliteSize, sqlite_rule

if TYPE_CHECKING:
    import apsw

db = Sqlite("/var/lib/shop/work.db")
other = Sqlite(
    Path("other.db"), name="other", timeout_s=2.0, low=Levels(1 << 20, 2 << 20), log_bytes_max=1 << 20, probe_timeout_s=1
)
never_low = Sqlite("work.db", low=None, classifiers=outlast.Classifiers([sqlite_rule]))
db.attach(outlast.Service("shop"))

assert_type(db.path, Path)
assert_type(db.size(), SqliteSize)
assert_type(db.size().file_bytes, int)
assert_type(db.size().log_is_held, bool)


def count(connection: apsw.Connection) -> int:
    return connection.total_changes()


async def script() -> None:
    async with db as opened:
        assert_type(opened, Sqlite)
        assert_type(await db.write(count, deadline_s=1.0), int)
        assert_type(await db.write(count, cleaning=True), int)
        assert_type(await db.read(count), int)
        seen = await db.changed(None, 0.0)
        assert_type(await db.changed(seen, 5.0), int)
