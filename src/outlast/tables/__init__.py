"""Metrics that make their own tables: standard collectors write, tables and fields appear. See `Tables`.

The names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast.tables._errors import InvalidPointError as InvalidPointError
    from outlast.tables._errors import InvalidQueryError as InvalidQueryError
    from outlast.tables._errors import NameTakenError as NameTakenError
    from outlast.tables._errors import TableError as TableError
    from outlast.tables._errors import TableNotFoundError as TableNotFoundError
    from outlast.tables._limits import TableLimits as TableLimits
    from outlast.tables._model import FieldRecord as FieldRecord
    from outlast.tables._model import FieldType as FieldType
    from outlast.tables._model import Point as Point
    from outlast.tables._model import PointOutcome as PointOutcome
    from outlast.tables._model import PointRefusal as PointRefusal
    from outlast.tables._model import Range as Range
    from outlast.tables._model import ReadPoint as ReadPoint
    from outlast.tables._model import TableCounts as TableCounts
    from outlast.tables._model import TableRecord as TableRecord
    from outlast.tables._model import Written as Written
    from outlast.tables._tables import Tables as Tables

_HOMES = {
    "FieldRecord": "_model",
    "FieldType": "_model",
    "InvalidPointError": "_errors",
    "InvalidQueryError": "_errors",
    "NameTakenError": "_errors",
    "PointOutcome": "_model",
    "Point": "_model",
    "PointRefusal": "_model",
    "Range": "_model",
    "ReadPoint": "_model",
    "TableCounts": "_model",
    "TableError": "_errors",
    "TableLimits": "_limits",
    "TableNotFoundError": "_errors",
    "TableRecord": "_model",
    "Tables": "_tables",
    "Written": "_model",
}

__all__ = [
    "FieldRecord",
    "FieldType",
    "InvalidPointError",
    "InvalidQueryError",
    "NameTakenError",
    "Point",
    "PointOutcome",
    "PointRefusal",
    "Range",
    "ReadPoint",
    "TableCounts",
    "TableError",
    "TableLimits",
    "TableNotFoundError",
    "TableRecord",
    "Tables",
    "Written",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
