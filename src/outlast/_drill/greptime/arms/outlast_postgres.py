"""The arm *outlast-postgres* of the greptime drill: `outlast.procedures` on PostgreSQL, in a service."""

from __future__ import annotations

import sys

import outlast
from outlast._drill.greptime.arms.outlast_tables import build
from outlast._drill.greptime.arms.table_server import TableSettings
from outlast.postgres import Postgres

if __name__ == "__main__":
    settings = TableSettings.from_environment()
    sys.exit(outlast.run(build(Postgres(settings.store), settings)))
