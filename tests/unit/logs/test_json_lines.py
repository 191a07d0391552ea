"""Records as JSON, one object a line, whatever is in them."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.logs._json_lines import JsonLines


def line(msg: object = "away", *args: object, **fields: Any) -> dict[str, Any]:
    record = logging.LogRecord("shop", logging.ERROR, "shop.py", 1, msg, args, fields.pop("exc_info", None))
    record.created = 1_000_000_000.5
    record.__dict__.update(fields)
    text = JsonLines().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    return found


def test_a_record_is_one_object_with_its_fields() -> None:
    assert line("no %s\nat all", "room", order="A-1", n=7, path=None) == {
        "time": "2001-09-09T01:46:40.500+00:00",
        "level": "ERROR",
        "logger": "shop",
        "message": "no room\nat all",
        "order": "A-1",
        "n": 7,
        "path": None,
    }


def test_our_own_fields_stand_beside_the_others_under_one_prefix() -> None:
    found = line(outlast={"outlast.count": 3, "dependency": "db"})
    assert (found["outlast.count"], found["outlast.dependency"]) == (3, "db")
    assert "outlast" not in found


def test_an_exception_and_a_stack_are_texts() -> None:
    try:
        raise ValueError("no order 17")
    except ValueError as exc:
        found = line(exc_info=(type(exc), exc, exc.__traceback__), stack_info="Stack:\n  here")
    assert found["exception"].endswith("ValueError: no order 17")
    assert found["stack"] == "Stack:\n  here"
    assert "exception" not in line(exc_info=(None, None, None))


def test_a_field_does_not_take_the_place_of_what_every_record_has() -> None:
    assert line(level="my own", time="noon")["level"] == "ERROR"


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("value", [math.nan, math.inf, CYCLE, {(1, 2): 3}, {1, 2}, b"\xff", Mute(), "\ud800"])
def test_what_is_no_json_is_a_text(value: Any) -> None:
    assert "field" in line(field=value)


VALUES = st.one_of(st.none(), st.floats(), st.text(max_size=5), st.binary(max_size=5), st.lists(st.floats(), max_size=2))


@given(st.dictionaries(st.text(min_size=1, max_size=5), VALUES, max_size=3))
def test_it_does_not_raise_for_any_field(fields: dict[str, Any]) -> None:
    own = logging.makeLogRecord({}).__dict__
    assert line(**{name: value for name, value in fields.items() if name not in {*own, "msg", "args"}})["message"] == "away"
