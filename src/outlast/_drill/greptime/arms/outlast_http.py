"""The arms *outlast* and *outlast-postgres* of the greptime drill over HTTP: `outlast.tables` with default settings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import outlast
from outlast._drill.greptime.arms.metrics_server import MetricsSettings
from outlast.http import Server
from outlast.tables import Tables, TablesApp

if TYPE_CHECKING:
    from outlast import Dependency


def database(settings: MetricsSettings) -> Dependency:
    """Return the store."""
    if settings.is_postgres:
        from outlast.postgres import Postgres

        return Postgres(settings.store)
    from outlast.sqlite import Sqlite

    return Sqlite(settings.store)


def build(settings: MetricsSettings) -> outlast.Service:
    """Return the service: its tables, and the server in front of them."""
    service = outlast.Service("drill")
    tables = Tables(database(settings), journal_path=f"{settings.state}/tables.journal")
    tables.attach(service)
    Server(TablesApp(tables).attach(service), settings.address).attach(service)
    return service


if __name__ == "__main__":
    sys.exit(outlast.run(build(MetricsSettings.from_environment())))
