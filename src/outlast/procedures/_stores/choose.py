"""The store in what the user hands to `Procedures`: SQLite, PostgreSQL or etcd. Only the one that is used is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from outlast import ConfigurationError

if TYPE_CHECKING:
    from outlast.etcd import Etcd
    from outlast.postgres import Postgres
    from outlast.procedures._stores.port import ProcedureStore
    from outlast.sqlite import Sqlite


def store_of(db: object, schema: str) -> ProcedureStore:
    """Return the store of procedures that lies in `db`, or `db` if it is one; `schema` is that of a PostgreSQL.

    Raises `ConfigurationError` for anything else.
    """
    if hasattr(db, "dependency") and hasattr(db, "claim"):
        return cast("ProcedureStore", db)
    packages = {".".join(cls.__module__.split(".")[:2]) for cls in type(db).__mro__}
    if "outlast.sqlite" in packages:
        from outlast.procedures._stores.sqlite import SqliteStore  # noqa: PLC0415 - an extra

        return SqliteStore(cast("Sqlite", db))
    if "outlast.postgres" in packages:
        from outlast.procedures._stores.postgres import PostgresStore  # noqa: PLC0415 - an extra

        return PostgresStore(cast("Postgres", db), schema=schema)
    if "outlast.etcd" in packages:
        from outlast.procedures._stores.etcd import EtcdStore  # noqa: PLC0415 - an extra

        return EtcdStore(cast("Etcd", db))
    wanted = "an outlast.sqlite.Sqlite, outlast.postgres.Postgres or outlast.etcd.Etcd"
    msg = f"procedures: they are kept in {wanted}, not in a {type(db).__name__}"
    raise ConfigurationError(msg)
