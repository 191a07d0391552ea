"""Values of the common types, out of PostgreSQL's text, and damage is refused."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.changes import Interval
from outlast.changes._decoding.values import text_decoder

BOOL, BYTEA, INT8, INT4, FLOAT8, DATE, TIME, TIMESTAMP, TIMESTAMPTZ = 16, 17, 20, 23, 701, 1082, 1083, 1114, 1184
INTERVAL, TIMETZ, NUMERIC, UUID, JSON, JSONB, TEXT_ARRAY, INT4_ARRAY, NUMERIC_ARRAY = (
    1186,
    1266,
    1700,
    2950,
    114,
    3802,
    1009,
    1007,
    1231,
)


def from_text(oid: int, text: str, **options: Any) -> object:
    decode = text_decoder(oid, **options)
    assert decode is not None
    return decode(text)


@pytest.mark.parametrize(
    ("oid", "text", "expected"),
    [
        (BOOL, "t", True),
        (BOOL, "f", False),
        (21, "-32768", -32768),
        (INT8, "9223372036854775807", 2**63 - 1),
        (700, "-Infinity", -math.inf),
        (FLOAT8, "1e-07", 1e-07),
        (NUMERIC, "1.500", Decimal("1.500")),
        (NUMERIC, "Infinity", Decimal("Infinity")),
        (BYTEA, "\\x00ff", b"\0\xff"),
        (DATE, "2026-11-21", dt.date(2026, 11, 21)),
        (DATE, "infinity", "infinity"),
        (DATE, "0044-03-15 BC", "0044-03-15 BC"),
        (DATE, "12026-11-21", "12026-11-21"),
        (TIME, "04:05:06.78", dt.time(4, 5, 6, 780_000)),
        (TIME, "24:00:00", "24:00:00"),
        (TIMETZ, "04:05:06+05:30", dt.time(4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))),
        (TIMESTAMP, "2026-11-21 04:05:06.7", dt.datetime(2026, 11, 21, 4, 5, 6, 700_000, tzinfo=dt.UTC).replace(tzinfo=None)),
        (TIMESTAMP, "-infinity", "-infinity"),
        (TIMESTAMPTZ, "2026-11-21 04:05:06+00", dt.datetime(2026, 11, 21, 4, 5, 6, tzinfo=dt.UTC)),
        (TIMESTAMPTZ, "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
        (INTERVAL, "1 year 2 mons -3 days -04:05:06.789", Interval(14, -3, -14_706_789_000)),
        (INTERVAL, "-1 years -2 mons +3 days 00:00:01", Interval(-14, 3, 1_000_000)),
        (INTERVAL, "00:00:00", Interval()),
        (INTERVAL, "2 days", Interval(0, 2)),
        (INTERVAL, "infinity", "infinity"),
        (UUID, "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
        (INT4_ARRAY, "{1,NULL,3}", [1, None, 3]),
        (INT4_ARRAY, "{}", []),
        (INT4_ARRAY, "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
        (INT4_ARRAY, "[0:1]={1,2}", "[0:1]={1,2}"),
        (TEXT_ARRAY, '{a,"b c","NULL","","q\\"\\\\,{}",null}', ["a", "b c", "NULL", "", 'q"\\,{}', None]),
        (NUMERIC_ARRAY, "{1.50,NaN}", None),
    ],
)
def test_what_the_server_writes(oid: int, text: str, expected: object) -> None:
    value = from_text(oid, text)
    if expected is None:
        assert str(value) == "[Decimal('1.50'), Decimal('NaN')]"
    else:
        assert value == expected
        assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("oid", "text"),
    [
        (BOOL, "true"),
        (INT4, "x"),
        (BYTEA, "abc"),
        (BYTEA, "\\xf"),
        (DATE, "21.11.2026"),
        (DATE, "Sat Nov 21"),
        (DATE, ""),
        (TIMESTAMP, "11/21/2026 04:05:06"),
        (TIME, "later"),
        (NUMERIC, "one"),
        (UUID, "1234"),
        (INTERVAL, "P1Y"),
        (INTERVAL, ""),
        (INTERVAL, "1-2" * 1000),
        *((INT4_ARRAY, text) for text in ("", "1", "{1", "{1}}", "{1,}", "{,1}", "{{1}{2}}", "{1}{2}", '{"1', "{x}", "{" * 50)),
    ],
)
def test_text_in_another_style_is_refused(oid: int, text: str) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        from_text(oid, text)


@given(
    st.sampled_from([TEXT_ARRAY, INT4_ARRAY, INTERVAL, DATE, TIMESTAMPTZ, BYTEA, NUMERIC, TIMETZ]),
    st.text(' {},"\\NUL1-:[]=', max_size=60),
)
def test_any_text_is_read_or_refused(oid: int, text: str) -> None:
    try:
        from_text(oid, text)
    except (ValueError, ArithmeticError):
        return


@given(
    st.recursive(
        st.lists(st.none() | st.text(max_size=8), min_size=1, max_size=3),
        lambda inner: st.lists(inner, min_size=1, max_size=3),
        max_leaves=6,
    )
)
def test_an_array_of_text_comes_back(value: list[Any]) -> None:
    def write(item: Any) -> str:
        if isinstance(item, list):
            return "{" + ",".join(map(write, item)) + "}"
        return "NULL" if item is None else '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'

    if depth(value) <= 6:
        assert from_text(TEXT_ARRAY, write(value)) == value


def depth(value: Any) -> int:
    return 1 + max(map(depth, value)) if isinstance(value, list) else 0


def test_json_is_text_unless_asked() -> None:
    assert text_decoder(JSON) is None
    assert text_decoder(JSONB) is None
    assert from_text(JSONB, '{"a": [1]}', json=True) == {"a": [1]}
    assert from_text(3807, '{"{\\"a\\": 1}",NULL}', json=True) == [{"a": 1}, None]


def test_other_types_stay_as_they_are() -> None:
    assert text_decoder(25) is None
    assert text_decoder(600) is None


def test_an_interval_without_months_has_a_length() -> None:
    assert Interval(0, 1, 500_000).as_timedelta() == dt.timedelta(days=1, seconds=0.5)
    with pytest.raises(ValueError, match="2 months has no fixed length"):
        Interval(2).as_timedelta()
