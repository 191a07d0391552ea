"""Python values for the common types, out of the binary form that PostgreSQL sends when it is asked for `binary`.

The same types and values as in `values`. What Python cannot hold is None here: the value then stays
a `BinaryValue`; the infinities of dates and timestamps are text, as in the other form.
"""

from __future__ import annotations

import datetime as dt
import json as json_module
import struct
import uuid
from decimal import Decimal
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

from outlast.changes._decoding.values import DIMENSIONS_MAX, ELEMENTS, Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BinaryDecoder: TypeAlias = "Callable[[bytes], object]"

_DAY: Final = dt.date(2000, 1, 1)
_MOMENT: Final = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - a timestamp without time zone
_MOMENT_UTC: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_DAY_US: Final = 24 * 3600 * 1_000_000
_NUMERIC_SPECIAL: Final[Mapping[int, str]] = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
"""NUMERIC_NAN, NUMERIC_PINF, NUMERIC_NINF of numeric.c."""
_REAL_MAX: Final = 3.4028234663852886e38
"""FLT_MAX of float.h; `struct` refuses to pack what is more. Infinities and NaN take the long way."""
_NUMERIC_NEGATIVE: Final = 0x4000
_NUMERIC_SCALE: Final = 0x3FFF
_NUMERIC_DIGIT_MAX: Final = 9999


def binary_decoder(type_oid: int, *, json: bool = False) -> BinaryDecoder | None:
    """What makes a Python value of this type's binary form; None for a type it does not know.

    It raises ValueError, ArithmeticError or struct.error for what is no such value.
    """
    if json and type_oid in {114, 3802}:
        text = _SCALARS[type_oid]
        return lambda data: json_module.loads(str(text(data)))
    element = ELEMENTS.get(type_oid)
    if element is None:
        return _SCALARS.get(type_oid)
    decode = binary_decoder(element, json=json)
    return None if decode is None else _array_decoder(element, decode)


def _fixed(form: str) -> BinaryDecoder:
    unpack = struct.Struct(form).unpack
    return lambda data: unpack(data)[0]


def _real(data: bytes) -> float:
    """The shortest decimal that stands for these four bytes, as PostgreSQL writes it, so that both forms give the same."""
    value: float = struct.unpack(">f", data)[0]
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= _REAL_MAX and struct.pack(">f", short) == data:
            return short
    return float(f"{value:.9g}")


def _bool(data: bytes) -> bool:
    if data not in {b"\0", b"\1"}:
        raise ValueError("a boolean is 0 or 1")
    return data == b"\1"


def _jsonb(data: bytes) -> str:
    if data[:1] != b"\1":
        raise ValueError("an unknown version of jsonb")
    return data[1:].decode()


def _infinity(value: int, bits: int) -> str | None:
    limit = 1 << (bits - 1)
    return "infinity" if value == limit - 1 else "-infinity" if value == -limit else None


def _date(data: bytes) -> object:
    (days,) = struct.unpack(">i", data)
    try:
        return _infinity(days, 32) or _DAY + dt.timedelta(days=days)
    except OverflowError:
        return None


def _moment(epoch: dt.datetime) -> BinaryDecoder:
    def decode(data: bytes) -> object:
        (microseconds,) = struct.unpack(">q", data)
        try:
            return _infinity(microseconds, 64) or epoch + dt.timedelta(microseconds=microseconds)
        except OverflowError:
            return None

    return decode


def _time_of_day(microseconds: int, zone: dt.tzinfo | None = None) -> dt.time | None:
    if microseconds == _DAY_US:
        return None
    if not 0 <= microseconds < _DAY_US:
        raise ValueError("a time of day beyond 24 hours")
    return (_MOMENT + dt.timedelta(microseconds=microseconds)).time().replace(tzinfo=zone)


def _time(data: bytes) -> object:
    return _time_of_day(struct.unpack(">q", data)[0])


def _timetz(data: bytes) -> object:
    microseconds, west_s = struct.unpack(">qi", data)
    return _time_of_day(microseconds, dt.timezone(dt.timedelta(seconds=-west_s)))


def _interval(data: bytes) -> Interval | None:
    microseconds, days, months = struct.unpack(">qii", data)
    if days in {-(1 << 31), (1 << 31) - 1} and months == days:
        return None
    return Interval(months, days, microseconds)


def _numeric(data: bytes) -> Decimal:
    count, weight, sign, scale = struct.unpack_from(">HhHH", data)
    digits = struct.unpack(f">{count}H", data[8:]) if len(data) == 8 + 2 * count else None
    if digits is None or scale > _NUMERIC_SCALE or any(digit > _NUMERIC_DIGIT_MAX for digit in digits):
        raise ValueError("a numeric that is not well formed")
    if sign in _NUMERIC_SPECIAL:
        return Decimal(_NUMERIC_SPECIAL[sign])
    if sign not in {0, _NUMERIC_NEGATIVE}:
        raise ValueError("a numeric of unknown sign")
    # The digits count in ten thousands; the first stands for 10000 ** weight. The scale says how many decimals were meant.
    whole = "".join([f"{digit:04}" for digit in digits[: max(0, weight + 1)]]) + "0000" * max(0, weight + 1 - count)
    rest = "0000" * max(0, -weight - 1) + "".join([f"{digit:04}" for digit in digits[max(0, weight + 1) :]])
    text = f"{whole.lstrip('0') or '0'}.{rest[:scale].ljust(scale, '0')}"
    return Decimal(("-" if sign else "") + text.rstrip(".") if scale == 0 else ("-" if sign else "") + text)


def _uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=data)


def _array_decoder(element: int, decode: BinaryDecoder) -> BinaryDecoder:
    def decode_array(data: bytes) -> object:
        dimensions, _flags, oid = struct.unpack_from(">iiI", data)
        if oid != element or not 0 <= dimensions <= DIMENSIONS_MAX:
            raise ValueError("an array that is not well formed")
        bounds = struct.unpack_from(f">{2 * dimensions}i", data, 12)
        if any(lower != 1 for lower in bounds[1::2]):
            return None
        sizes = bounds[::2]
        if any(size < 0 for size in sizes) or prod(sizes) * 4 > len(data):
            raise ValueError("an array of more elements than it has room for")
        return _elements(data, 12 + 8 * dimensions, sizes, decode)

    return decode_array


def _elements(data: bytes, at: int, sizes: tuple[int, ...], decode: BinaryDecoder) -> list[object] | None:
    """All elements, then folded into rows from the innermost dimension outwards. None if Python cannot hold one of them."""
    values: list[object] = []
    for _ in range(prod(sizes) if sizes else 0):
        (length,) = struct.unpack_from(">i", data, at)
        at += 4
        if length < 0:
            values.append(None)
            continue
        value = decode(data[at : at + length])
        if value is None:
            return None
        values.append(value)
        at += length
    if at != len(data):
        raise ValueError("an array with something behind its end")
    for size in reversed(sizes[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)] if size else []
    return values


_SCALARS: Final[Mapping[int, BinaryDecoder]] = {
    16: _bool,
    17: bytes,
    19: bytes.decode,
    20: _fixed(">q"),
    21: _fixed(">h"),
    23: _fixed(">i"),
    25: bytes.decode,
    26: _fixed(">I"),
    114: bytes.decode,
    700: _real,
    701: _fixed(">d"),
    1042: bytes.decode,
    1043: bytes.decode,
    1082: _date,
    1083: _time,
    1114: _moment(_MOMENT),
    1184: _moment(_MOMENT_UTC),
    1186: _interval,
    1266: _timetz,
    1700: _numeric,
    2950: _uuid,
    3802: _jsonb,
}
"""By the ids of the built-in types (pg_type.dat)."""
