"""The store in what the user hands to `Tables`: SQLite or PostgreSQL. Only the one that is used is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from outlast import ConfigurationError

if TYPE_CHECKING:
    from outlast.postgres import Postgres
    from outlast.sqlite import Sqlite
    from outlast.tables._stores.port import TableStore


def store_of(db: object, schema: str, data_schema: str) -> TableStore:
    """Return the store of tables that lies in `db`, or `db` if it is one.

    Of a PostgreSQL, `schema` is that of the catalogue and `data_schema` that of the tables with points. Raises
    `ConfigurationError` for anything else.
    """
    if hasattr(db, "dependency") and hasattr(db, "shape"):
        return cast("TableStore", db)
    packages = {".".join(cls.__module__.split(".")[:2]) for cls in type(db).__mro__}
    if "outlast.sqlite" in packages:
        from outlast.tables._stores.sqlite import SqliteStore  # noqa: PLC0415 - an extra

        return SqliteStore(cast("Sqlite", db))
    if "outlast.postgres" in packages:
        from outlast.tables._stores.postgres import PostgresStore  # noqa: PLC0415 - an extra

        return PostgresStore(cast("Postgres", db), schema=schema, data_schema=data_schema)
    wanted = "an outlast.sqlite.Sqlite or outlast.postgres.Postgres"
    raise ConfigurationError(f"tables: they are kept in {wanted}, not in a {type(db).__name__}")
