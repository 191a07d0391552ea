"""The store of tables in PostgreSQL keeps the promises of a store, on a server."""

from __future__ import annotations

import pytest
from postgres_table_rig import PostgresRig
from table_store_contract import TableStoreContract


class TestAPostgresStore(TableStoreContract):
    walks, steps, kills, racers, races = 1, 30, 1, 3, 3

    @pytest.fixture
    def rig(self, database: str) -> PostgresRig:
        return PostgresRig(database)


@pytest.mark.long
@pytest.mark.timeout(1_800)
class TestAPostgresStoreAtLength(TestAPostgresStore):
    walks, steps, kills, racers, races = 20, 400, 100, 8, 200
