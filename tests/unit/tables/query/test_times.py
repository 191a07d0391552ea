"""Times and durations, as OpenTSDB writes them."""

import pytest

from outlast.tables._errors import InvalidQueryError
from outlast.tables._query.times import duration_ms, time_ms

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1356998400", 1_356_998_400_000),
        ("1356998400000", 1_356_998_400_000),
        ("1356998400.5", 1_356_998_400_500),
        ("1356998400.123", 1_356_998_400_123),
        ("1356998400000ms", 1_356_998_400_000),
        # At most ten digits are seconds, as OpenTSDB's DateTime has it; the rule of writes is another.
        ("4294967296", 4_294_967_296_000),
        ("9223372036", 9_223_372_036_000),
        ("10000000000", 10_000_000_000),
        ("0", 0),
        ("now", NOW_MS),
        ("1h-ago", NOW_MS - 3_600_000),
        ("90s-AGO", NOW_MS - 90_000),
        ("100y-ago", 0),
        ("2012/12/31", 1_356_912_000_000),
        ("2013/01/01-00:00", 1_356_998_400_000),
        ("2013/01/01 00:00:01", 1_356_998_401_000),
        ("2013/01/01-00:00:01", 1_356_998_401_000),
    ],
)
def test_a_time(text: str, wanted: int) -> None:
    assert time_ms(text, NOW_MS) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"^'' is no time; write seconds"),
        ("-5", r"^'-5' is no time"),
        ("1.5", r"^'1.5' is no time"),
        ("yesterday", r"is no time"),
        ("1x-ago", r"^'1x' is no duration"),
        ("2013/13/01", r"^'2013/13/01' is no date; write seconds \(1700000000\)"),
        ("9" * 17, r"is after 2262-04-11, the last that can be stored"),
        ("9999999999999", r"is after 2262-04-11"),
        ("9" * 400, r"is no time"),
    ],
)
def test_a_time_that_is_none(text: str, said: str) -> None:
    with pytest.raises(InvalidQueryError, match=said):
        time_ms(text, NOW_MS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("500ms", 500),
        ("1s", 1_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("1w", 604_800_000),
        ("1n", 2_592_000_000),
        ("1y", 31_536_000_000),
        ("1H", 3_600_000),
    ],
)
def test_a_duration(text: str, wanted: int) -> None:
    assert duration_ms(text) == wanted
