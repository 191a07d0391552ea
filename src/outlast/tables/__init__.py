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
    from outlast.tables._http.app import TablesApp as TablesApp
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
    from outlast.tables._query.bounds import QueryLimits as QueryLimits
    from outlast.tables._query.ranges import RangeForm as RangeForm
    from outlast.tables._query.ranges import range_text as range_text
    from outlast.tables._schema.shape_procedures import SHAPE_KIND as SHAPE_KIND
    from outlast.tables._tables import Tables as Tables
    from outlast.tables._telnet.limits import PutLimits as PutLimits
    from outlast.tables._telnet.server import PutServer as PutServer

_HOMES = {
    "FieldRecord": "_model",
    "FieldType": "_model",
    "InvalidPointError": "_errors",
    "InvalidQueryError": "_errors",
    "NameTakenError": "_errors",
    "Point": "_model",
    "PointOutcome": "_model",
    "PointRefusal": "_model",
    "PutLimits": "_telnet.limits",
    "PutServer": "_telnet.server",
    "QueryLimits": "_query.bounds",
    "Range": "_model",
    "RangeForm": "_query.ranges",
    "range_text": "_query.ranges",
    "ReadPoint": "_model",
    "SHAPE_KIND": "_schema.shape_procedures",
    "TableCounts": "_model",
    "TableError": "_errors",
    "TableLimits": "_limits",
    "TableNotFoundError": "_errors",
    "TableRecord": "_model",
    "Tables": "_tables",
    "TablesApp": "_http.app",
    "Written": "_model",
}

__all__ = [
    "SHAPE_KIND",
    "FieldRecord",
    "FieldType",
    "InvalidPointError",
    "InvalidQueryError",
    "NameTakenError",
    "Point",
    "PointOutcome",
    "PointRefusal",
    "PutLimits",
    "PutServer",
    "QueryLimits",
    "Range",
    "RangeForm",
    "ReadPoint",
    "TableCounts",
    "TableError",
    "TableLimits",
    "TableNotFoundError",
    "TableRecord",
    "Tables",
    "TablesApp",
    "Written",
    "range_text",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
