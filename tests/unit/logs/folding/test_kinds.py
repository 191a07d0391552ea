"""Which records are the same kind for the folding of stdlib logging."""

from __future__ import annotations

import logging
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from outlast.logs.stdlib import fold

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("folded.kinds")


class Kept(logging.Handler):
    """Keeps the records it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    """The records that were shown, without summaries."""
    handler = Kept()
    log.addHandler(handler)
    with fold(timer=False) as handle:
        yield handler
        assert handle.unjudged == 0
        log.removeHandler(handler)


def raise_it(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as raised:  # noqa: BLE001
        return raised


def raise_it_elsewhere(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as raised:  # noqa: BLE001
        return raised


def group(*members: BaseException, message: str = "tasks failed") -> BaseException:
    return raise_it(BaseExceptionGroup(message, members))


def caused(cause: BaseException) -> BaseException:
    try:
        raise RuntimeError("no order") from cause
    except RuntimeError as raised:
        return raised


DISTINCT: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]] = [
    ("an errno", ("errno=%d", 111), ("errno=%d", 113)),
    ("an errno in brackets", ("[Errno %s] no", 111), ("[Errno %s] no", 113)),
    ("a status", ("answered with status %s", 500), ("answered with status %s", 404)),
    ("an exit code", ("exited with %d", 1), ("exited with %d", 2)),
    ("a port", ("cannot reach db port %d", 5432), ("cannot reach db port %d", 5433)),
    ("a path", ("cannot open %s", "/data/1/a"), ("cannot open %s", "/data/2/a")),
    ("a path object", ("cannot open %s", PurePosixPath("/a")), ("cannot open %s", PurePosixPath("/b"))),
    ("a table", ("no table %s", "orders"), ("no table %s", "users")),
    ("a host", ("cannot reach %s", "db-1.eu"), ("cannot reach %s", "db-2.eu")),
    ("an address", ("cannot reach %s", "10.0.0.1:5432"), ("cannot reach %s", "10.0.0.2:5432")),
    ("an exception's type", ("failed: %s", ValueError("x")), ("failed: %s", TypeError("x"))),
    ("an exception's code", ("failed: %s", OSError(111, "x")), ("failed: %s", OSError(113, "x"))),
    ("an exception's file", ("failed: %s", OSError(2, "x", "/a")), ("failed: %s", OSError(2, "x", "/b"))),
    ("an exception's words", ("failed: %r", ValueError("no table a")), ("failed: %r", ValueError("no table b"))),
    ("a value in a list", ("failed on %s", ["a"]), ("failed on %s", ["b"])),
    ("a name in a dict", ("%(host)s is away", {"host": "a"}), ("%(host)s is away", {"host": "b"})),
    ("a truth", ("ready: %s", True), ("ready: %s", False)),
    ("which of two", ("%s, not %s", "a", 1), ("%s, not %s", 1, "a")),
    ("a width", ("%*s is away", 5, "a"), ("%*s is away", 5, "b")),
    ("a text's code", ("HTTP 500 from a",), ("HTTP 404 from a",)),
    ("a text's code with a sign", ("code=500,",), ("code=404,",)),
    ("a text's SQLSTATE", ("SQLSTATE 23505",), ("SQLSTATE 40001",)),
    ("a text's name", ("cannot reach db-1",), ("cannot reach db-2",)),
    ("an object's words", (ValueError("a"),), (ValueError("b"),)),
    ("an object's type", (ValueError("a"),), (TypeError("a"),)),
    ("the template", ("cannot open %s", "a"), ("cannot close %s", "a")),
]

SAME: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]] = [
    ("an attempt", ("attempt %d at %s", 1, "a"), ("attempt %d at %s", 2, "a")),
    ("an attempt as text", ("attempt %s at %s", 1, "a"), ("attempt %s at %s", 2, "a")),
    ("a time", ("took %.2f s", 1.0), ("took %.2f s", 2.0)),
    ("a UUID", ("order %s failed", UUID(int=1)), ("order %s failed", UUID(int=2**100))),
    ("a UUID as text", ("order %s failed", str(UUID(int=1))), ("order %s failed", str(UUID(int=2**100)))),
    ("a long number", ("order %s failed", "A-1234567"), ("order %s failed", "A-7654321")),
    ("an address in memory", ("no %s", object()), ("no %s", object())),
    ("a name that is not shown", ("%(host)s", {"host": "a", "n": 1}), ("%(host)s", {"host": "a", "n": 2})),
    ("a text's number", ("attempt 7 failed",), ("attempt 8 failed",)),
    ("a text's duration", ("took 7.5ms, sorry",), ("took 812.5ms, sorry",)),
    ("a text's date", ("at 2026-01-02T03:04:05Z",), ("at 2026-01-02T03:04:06Z",)),
    ("an exception's number", ("failed: %s", ValueError("attempt 1")), ("failed: %s", ValueError("attempt 2"))),
]


@pytest.mark.parametrize(("first", "second"), [case[1:] for case in DISTINCT], ids=[case[0] for case in DISTINCT])
def test_what_differs_in_a_name_or_a_code_is_shown(first: Any, second: Any, kept: Kept) -> None:
    for _ in range(3):
        for message in (first, second):
            log.error(*message)
    assert len(kept.records) == 2


@pytest.mark.parametrize(("first", "second"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_what_differs_in_a_count_or_a_time_is_folded(first: Any, second: Any, kept: Kept) -> None:
    for _ in range(3):
        for message in (first, second):
            log.error(*message)
    assert len(kept.records) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (raise_it(ValueError("x")), raise_it(TypeError("x"))),
        (raise_it(ValueError("x")), raise_it(ValueError("y"))),
        (raise_it(OSError(111, "x")), raise_it(OSError(113, "x"))),
        (raise_it(ValueError("x")), raise_it_elsewhere(ValueError("x"))),
        (caused(OSError(111, "x")), caused(OSError(113, "x"))),
        (ValueError({"unhashable": "a"}), ValueError({"unhashable": "b"})),
        (group(ValueError("x")), group(TypeError("x"))),
        (group(ValueError("x"), OSError(111, "x")), group(ValueError("x"), OSError(113, "x"))),
        (group(ValueError("x")), group(ValueError("x"), message="other tasks failed")),
        (group(raise_it(ValueError("x"))), group(raise_it_elsewhere(ValueError("x")))),
        (group(caused(OSError(111, "x"))), group(caused(OSError(113, "x")))),
        (group(group(ValueError("x"))), group(group(TypeError("x")))),
        (caused(group(ValueError("x"))), caused(group(TypeError("x")))),
    ],
    ids=[
        "type",
        "words",
        "code",
        "raising line",
        "cause",
        "what it carries",
        "a member's type",
        "a member's code",
        "a group's words",
        "a member's raising line",
        "a member's cause",
        "a member's member",
        "a cause's member",
    ],
)
def test_a_different_exception_is_shown(first: BaseException, second: BaseException, kept: Kept) -> None:
    for _ in range(3):
        log.error("failed", exc_info=first)
        log.error("failed", exc_info=(type(second), second, second.__traceback__))
    assert len(kept.records) == 2


def test_groups_of_the_same_members_in_another_order_or_number_are_folded(kept: Kept) -> None:
    for members in ([ValueError("1"), KeyError("a")], [KeyError("a"), ValueError("2")], [KeyError("a")] + [ValueError("3")] * 2):
        log.error("failed", exc_info=BaseExceptionGroup("tasks failed", members))
        log.error("failed: %s", BaseExceptionGroup("tasks failed", members))
    assert len(kept.records) == 2


def test_members_of_a_group_that_is_a_value_are_part_of_it(kept: Kept) -> None:
    for _ in range(3):
        for member in (ValueError("x"), TypeError("x")):
            log.error("failed: %s", ExceptionGroup("tasks failed", [member]))
    assert len(kept.records) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"host": "db-1"}, {"host": "db-2"}),
        ({"status": 500}, {"status": 404}),
        ({"a": "x"}, {"b": "x"}),
        ({"a": "x"}, None),
        ({"error": OSError(111, "x")}, {"error": OSError(113, "x")}),
    ],
)
def test_what_differs_in_a_field_of_extra_is_shown(first: Any, second: Any, kept: Kept) -> None:
    for _ in range(3):
        for extra in (first, second):
            log.error("away", extra=extra)
            log.error("away: %s", "a", extra=extra)
            log.error("away", exc_info=ValueError("x"), extra=extra)
    assert len(kept.records) == 6


def test_fields_of_extra_that_count_or_name_an_instance_are_folded(kept: Kept) -> None:
    for number in range(3):
        log.error("away", extra={"host": "db-1", "n": number, "request_id": f"r{number}", "elapsed": f"{number} of 3"})
        logging.LoggerAdapter(log, {"attempt": number}).error("attempt %d", number)
    assert len(kept.records) == 2
