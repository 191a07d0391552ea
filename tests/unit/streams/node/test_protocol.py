"""Offsets, numbers, media types, instants: what is one, and what is none."""

from __future__ import annotations

import pytest

from outlast.streams._node import protocol

NO_NUMBERS = [
    "",
    "+1",
    "1_0",
    " 7",
    "7 ",
    " 7 ",
    "-0",
    "-1",
    "007",
    "00",
    "1.0",
    "1e3",
    "0x1",
    "\xb2",
    "1\xb2",
    "9" * 5000,
    "9007199254740992",
]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_int_would_take_or_choke_on_is_no_number(text: str) -> None:
    assert protocol.parse_number(text.encode("latin-1")) is None


def test_a_number_has_ascii_digits_up_to_2_to_the_53_less_1() -> None:
    assert [protocol.parse_number(text) for text in (b"0", b"7", b"10", b"9007199254740991")] == [0, 7, 10, 2**53 - 1]


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "now", "１２", "0" * 17, "+000000000000001", "000000000000000_", "9" * 16, "0" * 15 + "²"]
)
def test_an_offset_is_one_that_this_node_writes(text: str) -> None:
    assert protocol.parse_offset(text) is None


@pytest.mark.parametrize("position", [0, 42, 2**53 - 1])
def test_offsets_come_back_and_sort_as_positions_do(position: int) -> None:
    assert protocol.parse_offset(protocol.offset_text(position)) == position
    assert protocol.offset_value(position).decode() == protocol.offset_text(position)
    assert sorted(map(protocol.offset_text, (10, 9, 100, position))) == [
        protocol.offset_text(each) for each in sorted((10, 9, 100, position))
    ]


@pytest.mark.parametrize(
    ("text", "media_type"),
    [
        ("text/plain", "text/plain"),
        ("APPLICATION/JSON", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("application/json ;charset=utf-8", "application/json"),
        ("application/vnd.shop+json", "application/vnd.shop+json"),
        ("", None),
        ("text", None),
        ("text/", None),
        ("/plain", None),
        ("text/plain\r\nx: y", None),
        ("text/plain, text/html", None),
        ("te xt/plain", None),
        ("text/plain; " + "a" * 300, None),
        ("text/pl\xe4in", None),
    ],
)
def test_a_media_type_is_compared_without_case_and_parameters(text: str, media_type: str | None) -> None:
    assert protocol.parse_content_type(text) == media_type


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01t00:00:10.5z", 10.5),
        ("1970-01-01T02:00:10.000000001+02:00", 10.0),
        ("2030-02-30T00:00:00Z", None),
        ("2030-01-01T25:00:00Z", None),
        ("2030-01-01T00:00:00", None),
        ("2030-01-01 00:00:00Z", None),
        ("2030-01-01", None),
        ("2030-W01-1T00:00:00Z", None),
        ("20300101T000000Z", None),
        ("2030-01-01T00:00:00+99:99", None),
        ("2030-01-01T00:00:00Z ", None),
        ("２030-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_an_instant_is_a_whole_timestamp_with_its_zone(text: str, seconds: float | None) -> None:
    assert protocol.parse_instant(text) == seconds
