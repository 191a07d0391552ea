"""What all tests share.

**Logs.** A test fails when a logger of `outlast`, `asyncio` or `psycopg` writes a warning or worse that the test did not
ask for. A test asks with the fixture `expected_logs`:

    def test_it(expected_logs):
        expected_logs("postgres is down")          # a regular expression; must be logged at least once
        expected_logs("took", optional=True)       # may be logged

The marker `expected_logs`, for a test or a module whose subject is outages, allows every line of `outlast`, or those that
match the expressions it is given: `pytestmark = pytest.mark.expected_logs("is down")`. It demands none.

A test that takes pytest's `caplog` looks at the records itself, and is left alone.

**Servers.** `database` gives the DSN of a fresh, empty database; `postgres` the server of all tests, which no test breaks;
`server` a server of the test's own, to be stopped, frozen and killed. `database` uses the server that the variable
OUTLAST_TEST_DSN names, when it is set: its user must be allowed to create databases.

**Time.** Tests are plain functions. Outside tests/real they run coroutines with `outlast.testing.run_virtual`, where time
jumps; in tests/real with `asyncio.run`, or with the fixture `run_async`, which ends them after a limit.

**Which.** `--real=short` leaves out those tests of tests/real that are not marked `short`, `--real=none` all of them.
Tests marked `root` are skipped for other users. `--schedules` says how many random services tests/sim stops: 10,000 when all
of tests/real run, otherwise 1,000.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
from hypothesis import settings

from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

REAL = Path(__file__).parent / "real"
WATCHED_LOGGERS = ("outlast", "asyncio", "psycopg")
DSN_VARIABLE = "OUTLAST_TEST_DSN"

# The machine may be busy with a server when an example runs: its time says nothing.
settings.register_profile("outlast", deadline=None, print_blob=True)
settings.load_profile("outlast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real", choices=["all", "short", "none"], default="all", help="which tests of tests/real to run")
    parser.addoption("--schedules", type=int, help="how many schedules tests/sim runs (10,000 with --real=all, otherwise 1,000)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    which = config.getoption("--real")
    chosen = [
        item
        for item in items
        if which == "all" or REAL not in item.path.parents or (which == "short" and item.get_closest_marker("short"))
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs to be root"))


@pytest.fixture
def schedules(request: pytest.FixtureRequest) -> int:
    """How many schedules the simulator is to run."""
    return request.config.getoption("--schedules") or (10_000 if request.config.getoption("--real") == "all" else 1000)


class LogWatch(logging.Handler):
    """Keeps what watched loggers write at WARNING or above, and what the test said it expects."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.expected: list[tuple[re.Pattern[str], bool]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in WATCHED_LOGGERS:
            self.messages.append(f"{record.levelname} {record.name}: {record.getMessage()}")

    def __call__(self, pattern: str, *, optional: bool = False) -> None:
        self.expected.append((re.compile(pattern), optional))

    def complaints(self) -> list[str]:
        unexpected = [
            f"unexpected log line: {message}"
            for message in self.messages
            if not any(pattern.search(message) for pattern, _ in self.expected)
        ]
        missing = [
            f"expected a log line that matches {pattern.pattern!r}, and there was none"
            for pattern, optional in self.expected
            if not optional and not any(pattern.search(message) for message in self.messages)
        ]
        return unexpected + missing


@pytest.fixture(autouse=True)
def expected_logs(request: pytest.FixtureRequest) -> Iterator[LogWatch]:
    """Call it with a regular expression for each warning that the test is about; see the head of this file."""
    watch = LogWatch()
    marker = request.node.get_closest_marker("expected_logs")
    if marker:
        for pattern in marker.args or (r"^\w+ outlast\b",):
            watch(pattern, optional=True)
    root = logging.getLogger()
    root.addHandler(watch)
    yield watch
    root.removeHandler(watch)
    complaints = [] if "caplog" in request.fixturenames else watch.complaints()
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


class RunAsync(Protocol):
    """Runs a coroutine to its end; a test that hangs ends with TimeoutError after `limit_s`."""

    def __call__(self, main: Callable[[], Coroutine[Any, Any, T]], *, limit_s: float = 60.0) -> T: ...


@pytest.fixture
def run_async() -> RunAsync:
    """Run a coroutine function on a real event loop, within a limit."""

    def run(main: Callable[[], Coroutine[Any, Any, T]], *, limit_s: float = 60.0) -> T:
        async def limited() -> T:
            async with asyncio.timeout(limit_s):
                return await main()

        return asyncio.run(limited())

    return run


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests; no test may break it."""
    with PostgresServer(settings={"max_connections": "200", "fsync": "off"}) as server:
        yield server


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of an empty database of the test's own."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    base = os.environ.get(DSN_VARIABLE) or request.getfixturevalue("postgres").dsn()
    name = f"outlast_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(base, autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"'.encode())
    yield make_conninfo(base, dbname=name)
    with psycopg.connect(base, autocommit=True) as conn:
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own, to be broken."""
    with PostgresServer(settings={"max_connections": "100", "fsync": "off"}) as own:
        yield own
