"""Tables as their users see them: write, read, look, drop; and made in a service when they are first written to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType

    from outlast import Classifiers, Service
    from outlast.tables._limits import TableLimits
    from outlast.tables._model import Parsed, Point, Range, ReadPoint, TableCounts, TableRecord, Written


class Tables:
    """A store of metrics whose tables make themselves.

    tables = Tables(Sqlite("metrics.db"))
    tables.attach(service)
    written = await tables.write([Point("cpu", {"used": 0.5}, {"host": "a"})])
    """

    def __init__(
        self,
        db: object,
        *,
        limits: TableLimits | None = None,
        retention_s: float | None = None,
        schema: str = "outlast",
        data_schema: str = "metrics",
        journal_path: str | os.PathLike[str] | None = None,
        classifiers: Classifiers | None = None,
    ) -> None:
        raise NotImplementedError

    def attach(self, service: Service) -> None:
        """Make it a part of `service`: its procedures, its writer, its retention. Once."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """Use it without a service: writes and reads pass, and tables are made by a runner in this block."""
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        raise NotImplementedError

    # Writing.

    async def write(self, points: Sequence[Point], *, client: str = "", deadline_s: float | None = None) -> Written:
        """Write points from Python; places count from 0."""
        raise NotImplementedError

    async def write_lines(
        self, lines: bytes, *, unit_ns: int | None = 1, client: str = "", deadline_s: float | None = None
    ) -> Written:
        """Write lines of InfluxDB's line protocol; places are numbers of lines, from 1."""
        raise NotImplementedError

    async def write_parsed(
        self,
        parsed: Parsed,
        *,
        client: str = "",
        durable: bool = True,
        whole: bool = False,
        deadline_s: float | None = None,
    ) -> Written:
        """Write what a parser of ours made of a body. It may change the rows of `parsed`.

        `client`: whose quota it is, the name of its token. `durable=False`: return once they are in line. `whole`: store nothing
        if anything is refused.
        """
        raise NotImplementedError

    # Reading.

    def read(self, ask: Range, *, points_max: int | None = None) -> AsyncIterator[ReadPoint]:
        """Iterate over points by series and time, a page at a time."""
        raise NotImplementedError

    async def newest(self, table: str, tags: Mapping[str, tuple[str, ...]] | None = None, *, count: int = 100) -> list[ReadPoint]:
        """Return the newest point of each series."""
        raise NotImplementedError

    async def tables(self, *, after: str = "", count: int = 1_000) -> list[TableRecord]:
        """Return tables in the order of their names."""
        raise NotImplementedError

    async def table(self, name: str) -> TableRecord | None:
        """Return one table as it is now; None if there is none."""
        raise NotImplementedError

    async def counts(self, name: str) -> TableCounts | None:
        """Return what a table holds."""
        raise NotImplementedError

    async def tag_names(self, table: str = "", *, prefix: str = "", count: int = 25) -> list[str]:
        """Return names of tags."""
        raise NotImplementedError

    async def tag_values(self, tag: str = "", *, table: str = "", prefix: str = "", count: int = 25) -> list[str]:
        """Return values of tags."""
        raise NotImplementedError

    # Changing.

    async def drop(self, name: str) -> bool:
        """Drop a table by a procedure; return whether there was one."""
        raise NotImplementedError

    async def set_retention(self, name: str, retention_s: float | None) -> bool:
        """Set how long points of a table are kept; return whether there is one."""
        raise NotImplementedError
