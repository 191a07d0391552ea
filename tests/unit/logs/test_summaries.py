"""Summaries reach the log whatever a formatter, a filter, a factory or a processor of the user's does: they hold the counts."""

from __future__ import annotations

import io
import logging
import logging.handlers
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import structlog
from loguru import logger as loguru_logger

from outlast._core.incidents import Line
from outlast.logs import _delivery as delivery
from outlast.logs import loguru
from outlast.logs._folding import folder
from outlast.logs._lines import write
from outlast.logs.stdlib import fold
from outlast.logs.structlog import fold as structlog_fold

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("folded.summaries")
Handler: TypeAlias = "logging.StreamHandler[io.StringIO]"


@pytest.fixture
def handler() -> Iterator[logging.StreamHandler[io.StringIO]]:
    """A handler of the folded logger."""
    made = logging.StreamHandler(io.StringIO())
    log.addHandler(made)
    log.propagate = False
    yield made
    log.handlers.clear()
    log.filters.clear()
    log.propagate = True


@pytest.fixture
def out(handler: logging.StreamHandler[io.StringIO]) -> io.StringIO:
    """What that handler has written."""
    return handler.stream


@pytest.fixture
def last_words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was written to standard error because nothing else could be."""
    said: list[str] = []
    for module in (folder, delivery):
        monkeypatch.setattr(module, "say", said.append)
    return said


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """The types of what was given to `threading.excepthook`."""
    found: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: found.append(hook.exc_type))
    return found


def storm(count: int = 3, **extra: object) -> None:
    with fold(timer=False):
        for _ in range(count):
            log.error("away", extra=extra or None)


def raises(*_: object) -> Any:
    raise RuntimeError("the user's own")


@pytest.mark.parametrize(
    ("style", "format_"), [("%", "%(order)s %(message)s"), ("{", "{order} {message}"), ("$", "${order} ${message}")]
)
def test_a_formatter_that_reads_a_field_of_extra_finds_that_of_the_first(style: Any, format_: str, handler: Handler) -> None:
    handler.setFormatter(logging.Formatter(format_, style=style))
    storm(order="A-1")
    assert handler.stream.getvalue().splitlines() == ["A-1 away", "A-1 away [so far: 2 more, 3 in 0.0 s]"]


def test_a_formatter_that_raises_for_a_summary_costs_no_count(handler: Handler) -> None:
    class Picky(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{super().format(record)} at {record.args['at']}"  # type: ignore[index,call-overload]

    handler.setFormatter(Picky())
    with fold(timer=False):
        for _ in range(3):
            log.error("away", {"at": "noon"})  # noqa: PLE1205  # a formatter of the test shows it
    first, summary = handler.stream.getvalue().splitlines()
    assert first == "away at noon"
    assert summary.endswith("ERROR folded.summaries: away [so far: 2 more, 3 in 0.0 s]")
    assert (handler.formatter.__class__, "handleError" in handler.__dict__) == (Picky, False)


def test_a_formatter_that_raises_in_a_queue_handler_costs_no_count(handler: Handler) -> None:
    taken: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    queued = logging.handlers.QueueHandler(taken)
    log.addHandler(queued)
    with fold(timer=False):
        log.error("away")
        log.error("away")
        queued.setFormatter(logging.Formatter("%(missing)s"))
    assert taken.get_nowait().getMessage() == "away"
    assert taken.get_nowait().getMessage().endswith("away [so far: 1 more, 2 in 0.0 s]")


def test_each_handler_gets_the_summary_although_another_one_raises(out: io.StringIO) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "outlast" in record.__dict__ and self.formatter is not delivery.PLAIN:
                raises()
            out.write(f"broken: {record.getMessage()}\n")

    log.handlers.insert(0, Broken())
    storm()
    assert out.getvalue().splitlines()[2:] == [
        "broken: away [so far: 2 more, 3 in 0.0 s]",
        "away [so far: 2 more, 3 in 0.0 s]",
    ]


def test_a_handler_that_can_write_nothing_leaves_the_count_to_standard_error(handler: Handler, last_words: list[str]) -> None:
    with fold(timer=False):
        for _ in range(3):
            log.error("away")
        handler.format = raises  # type: ignore[method-assign]
    assert handler.stream.getvalue() == "away\n"
    (line,) = last_words
    assert line.endswith("ERROR folded.summaries: away [so far: 2 more, 3 in 0.0 s] [StreamHandler failed: RuntimeError]")


def test_a_place_that_cannot_be_written_leaves_the_count_to_standard_error(
    out: io.StringIO, last_words: list[str], reported: list[type[BaseException]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_text: str) -> int:
        raise OSError(28, "No space left on device")

    with fold(timer=False):
        for _ in range(3):
            log.error("away")
        monkeypatch.setattr(out, "write", full)
    assert (len(last_words), reported) == (1, [OSError])
    assert "[so far: 2 more, 3 in 0.0 s] [StreamHandler failed: OSError]" in last_words[0]


@pytest.mark.parametrize("where", ["logger", "handler"])
def test_a_filter_that_raises_costs_no_count(
    where: str, handler: Handler, reported: list[type[BaseException]], last_words: list[str]
) -> None:
    with fold(timer=False):
        for _ in range(3):
            log.error("away")
        (log if where == "logger" else handler).addFilter(raises)
    assert handler.stream.getvalue().endswith("away [so far: 2 more, 3 in 0.0 s]\n")
    assert (reported, last_words) == ([RuntimeError] if where == "logger" else [], [])


def test_a_factory_that_raises_costs_no_count(
    out: io.StringIO, reported: list[type[BaseException]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with fold(timer=False):
        for _ in range(3):
            log.error("away")
        monkeypatch.setattr(logging, "_logRecordFactory", raises)
    assert out.getvalue().splitlines()[1:] == ["away [so far: 2 more, 3 in 0.0 s]"]
    assert reported == [RuntimeError]


def test_a_logger_with_a_way_of_its_own_keeps_it_and_where_that_raises_standard_error_has_the_count(
    out: io.StringIO, reported: list[type[BaseException]], last_words: list[str]
) -> None:
    class OwnWay(logging.Logger):
        def handle(self, record: logging.LogRecord) -> None:
            if "outlast" in record.__dict__:
                raises()

    own = OwnWay("folded.own")
    with fold(timer=False):
        for _ in range(3):
            own.error("away")
    assert reported == [RuntimeError]
    assert last_words == ["outlast: away [so far: 2 more, 3 in 0.0 s] [could not be logged: RuntimeError]"]


def test_a_line_of_an_incident_is_written_although_the_formatter_raises(handler: Handler) -> None:
    handler.setFormatter(logging.Formatter("%(order)s %(message)s"))
    line = Line(logging.ERROR, "db is down", {"count": 3}, with_traceback=True)
    write(log, line, ValueError("no order 17"))
    write(log, None)
    first, *_, last = handler.stream.getvalue().splitlines()
    assert first.endswith("ERROR folded.summaries: db is down")
    assert last == "ValueError: no order 17"


# structlog and loguru


@pytest.mark.parametrize("way", ["processor", "wrapped"])
def test_a_processor_that_reads_a_field_finds_that_of_the_first_and_one_that_raises_costs_no_count(
    way: str, reported: list[type[BaseException]]
) -> None:
    events: list[str] = []
    broken = False

    def render(logger: Any, method: str, event_dict: dict[str, Any]) -> str:
        if broken and "outlast.key" in event_dict:
            raises()
        events.append(f"{event_dict['order']} {event_dict['event']}")
        return events[-1]

    class Raw:
        def error(self, text: str) -> None:
            if text not in events:
                events.append(text)

    native = structlog.make_filtering_bound_logger(20)
    for attempt in range(2):
        broken = bool(attempt)
        with structlog_fold(timer=False) as folding:
            structlog.configure(
                processors=[*([folding] if way == "processor" else []), render],
                wrapper_class=native if way == "processor" else folding.wrap(native),
                logger_factory=Raw,
            )
            for _ in range(3):
                structlog.get_logger().error("away", order="A-1")
    structlog.reset_defaults()
    assert events[:3] == ["A-1 away", "A-1 away [so far: 2 more, 3 in 0.0 s]", "A-1 away"]
    assert events[3].startswith("away [so far: 2 more, 3 in 0.0 s] {")
    assert "'outlast.count': 2" in events[3]
    assert reported == [RuntimeError]


def test_a_format_of_loguru_finds_the_values_of_the_first_or_a_stand_in() -> None:
    lines: list[str] = []
    loguru_logger.remove()
    sink = loguru_logger.add(lines.append, format="{extra[order]} {extra[shop]} {message}", catch=False)
    with loguru.fold(timer=False):
        for _ in range(3):
            loguru_logger.bind(shop="s").error("away", order="A-1")
    with loguru.fold(timer=False):
        for _ in range(3):
            loguru_logger.bind(shop="s").opt(lazy=True).error("away {order}", order=lambda: "A-1")
    loguru_logger.remove(sink)
    assert [line.strip() for line in lines] == [
        "A-1 s away",
        "A-1 s away [so far: 2 more, 3 in 0.0 s]",
        "A-1 s away A-1",
        "- s away {order} [so far: 2 more, 3 in 0.0 s]",
    ]
