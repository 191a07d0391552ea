"""The store of tables in PostgreSQL keeps the promises of a store, on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from postgres_table_rig import PostgresRig, emptied, shared_database
from table_store_contract import TableStoreContract
from table_store_processes import ProcessContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.testing import PostgresServer


@pytest.fixture(scope="module")
def shared(postgres: PostgresServer) -> Iterator[str]:
    with shared_database(postgres.dsn()) as dsn:
        yield dsn


class TestAPostgresStore(TableStoreContract, ProcessContract):
    walks, steps, kills, racers, races = 1, 30, 1, 3, 3

    @pytest.fixture
    def rig(self, shared: str, request: pytest.FixtureRequest) -> PostgresRig:
        return PostgresRig(emptied(shared, whole="open_an_empty_place" in request.node.name))


@pytest.mark.long
@pytest.mark.timeout(1_800)
class TestAPostgresStoreAtLength(TestAPostgresStore):
    walks, steps, kills, racers, races = 20, 400, 100, 8, 200
