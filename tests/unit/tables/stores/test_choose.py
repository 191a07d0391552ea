"""The store of tables is chosen by what it lies in, and only that one is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from outlast import ConfigurationError
from outlast.sqlite import Sqlite
from outlast.tables._stores.choose import store_of
from outlast.tables._stores.sqlite import SqliteStore


class MySqlite(Sqlite):
    """A user's own."""


@pytest.mark.parametrize("of", [Sqlite, MySqlite])
def test_a_file_gets_the_store_in_sqlite(of: type[Sqlite]) -> None:
    db = of("metrics.db")
    store = store_of(db, "outlast", "metrics")
    assert isinstance(store, SqliteStore)
    assert store.dependency is db
    assert store_of(store, "outlast", "metrics") is store


def test_anything_else_is_refused_by_what_it_is() -> None:
    with pytest.raises(ConfigurationError, match=r"Sqlite or outlast\.postgres\.Postgres, not in a str"):
        store_of("metrics.db", "outlast", "metrics")


def test_only_the_store_that_is_used_is_imported() -> None:
    program = """
import sys
from outlast.tables._stores.choose import store_of
assert not {"apsw", "psycopg"} & set(sys.modules)
from outlast.sqlite import Sqlite
store_of(Sqlite("metrics.db"), "outlast", "metrics")
assert "psycopg" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
