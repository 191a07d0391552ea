"""Columns of rows as the text of PostgreSQL's arrays: one value of a statement for each column.

The text is made by calls that run over a whole column in C: a list's `repr` is an array but for its brackets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outlast.tables._model import FieldType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.tables._stores.postgres._catalogue import Column


class UnfitTextError(ValueError):
    """A text that PostgreSQL has no bytes for: a NUL, or half of a surrogate pair."""


def arrays(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return an array for the series, the times, and each column of these fields, the integers of a NUMBER first."""
    series, times, *values = zip(*rows, strict=True)
    texts = [_plain(series), _plain(times)]
    for column, of in zip(columns, values, strict=True):
        match column.field.type:
            case FieldType.STRING:
                texts.append(_strings(of))
            case FieldType.NUMBER:
                texts.append(_some([repr(value) if type(value) is not float else "NULL" for value in of]))
                texts.append(_some([repr(value) if type(value) is float else "NULL" for value in of]))
            case _:
                texts.append(_plain(of))
    return texts


def _plain(values: Sequence[Any]) -> str:
    # Digits of a float are those that make the same float; True is a boolean.
    return f"{{{str(list(values))[1:-1]}}}"


def _some(texts: Sequence[str]) -> str:
    return f"{{{','.join(texts)}}}"


def _strings(values: Sequence[str]) -> str:
    joined = "\0".join(values)
    if joined.count("\0") != len(values) - 1:
        msg = "a text with a NUL"
        raise UnfitTextError(msg)
    if not joined.isascii():
        try:
            joined.encode()
        except UnicodeEncodeError as error:
            msg = "a text with half of a surrogate pair"
            raise UnfitTextError(msg) from error
    joined = joined.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{joined}"}}'
