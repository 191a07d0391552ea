"""What every store of tables promises: one suite, and a rig for each store (`table_store_rig.TableStoreRig`).

A store takes part by a class beside its rig:

    class TestMyStore(TableStoreContract):
        @pytest.fixture
        def rig(self) -> TableStoreRig: ...
"""

from __future__ import annotations

from table_store_reads import ReadContract
from table_store_shapes import ShapeContract
from table_store_writes import WriteContract


class TableStoreContract(ShapeContract, WriteContract, ReadContract):
    """The promises of every store. A subclass has the fixture `rig`."""
