"""What all tests share.

**Logs.** A test fails when a logger of `outlast`, `asyncio` or `psycopg` writes a warning or worse that the test did not
ask for. A test asks with the fixture `expected_logs`:

    def test_it(expected_logs):
        expected_logs("postgres is down")          # a regular expression; must be logged at least once
        expected_logs("took", optional=True)       # may be logged

The marker `expected_logs`, for a test or a module whose subject is outages, allows every line of `outlast`, or those that
match the expressions it is given: `pytestmark = pytest.mark.expected_logs("is down")`. It demands none.

A test that takes pytest's `caplog` looks at the records itself, and is left alone.

**Servers.** `etcd` is an etcd for all tests, which no test breaks: each uses a prefix of its own; one that breaks it makes an
`EtcdServer` of its own. `database` gives the DSN of a fresh, empty database; `postgres` the server of all tests, which no test
breaks; `server` a server of the test's own, to be stopped, frozen and killed. Their files are in memory where there is room, and
copied from those of the first: a fresh database costs a tenth of what it costs on a disk. `database` uses the server that the
variable OUTLAST_TEST_DSN names, when it is set: its user must be allowed to create databases.

**Time.** Tests are plain functions. Outside tests/real they run coroutines with `outlast.testing.run_virtual`, where time
jumps; in tests/real with `asyncio.run`, or with the fixture `run_async`, which ends them after a limit.

**Which.** Tests marked `long` are run with `--long` only: rounds by the hundred, millions of rows. `--rounds 20` runs each
chosen test twenty times, on a busy machine for one. `--any-python` leaves the
tests of what can differ between versions of Python, for all but the newest: the files in EVERY_PYTHON, and of tests/real
those tests that are marked `short`. Tests marked `root` are skipped for other users. `--schedules` says how many random
services tests/sim stops: 1,000, and with `--long` 10,000.

**Cost.** The end of a run names the tests that cost the most processor time, theirs and that of the processes they waited
for. A server's own is told where it is removed: with the last test of a file that shares one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import uuid
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
from hypothesis import settings

from outlast.testing import EtcdServer, PostgresServer
from outlast.testing._postgres.files import ServerFiles
from outlast.testing._postgres.unprivileged import DIRECTORY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator

T = TypeVar("T")

HERE = Path(__file__).parent
REAL = HERE / "real"
WATCHED_LOGGERS = ("outlast", "asyncio", "psycopg")
DSN_VARIABLE = "OUTLAST_TEST_DSN"

EVERY_PYTHON = (
    # asyncio: task groups, time-outs, cancellation, eager tasks, the order of the loop.
    "unit/runtime/admission/test_admission.py",
    "unit/runtime/admission/test_attached.py",
    "unit/runtime/admission/test_decorator.py",
    "unit/runtime/dependency/test_blocking.py",
    "unit/runtime/dependency/test_dependency.py",
    "unit/runtime/dependency/test_dependency_threads.py",
    "unit/http/test_admitting.py",
    "unit/http/test_event_stream.py",
    "unit/http/test_long_poll.py",
    "unit/runtime/service/test_gate.py",
    "unit/jobs/test_own_threads.py",
    "unit/streams/test_committer.py",
    "unit/streams/test_committer_trouble.py",
    "unit/runtime/service/test_lifecycle.py",
    "unit/runtime/service/test_link.py",
    "unit/core/test_phases.py",
    "unit/http/client/test_peer_bounds.py",
    "unit/postgres/pool/test_endings.py",
    "unit/postgres/pool/test_places.py",
    "unit/runtime/dependency/test_retry.py",
    "unit/runtime/service/test_scripted_service.py",
    "unit/testing/test_seeded_order.py",
    "unit/runtime/service/test_service.py",
    "unit/runtime/service/test_stop.py",
    "unit/core/test_turns.py",
    "unit/testing/test_virtual_time.py",
    "sim/test_sim.py",
    # Exceptions, groups of them, their tracebacks and texts.
    "unit/core/test_classify.py",
    "unit/logs/test_stdlib.py",
    "unit/logs/folding/test_kinds.py",
    "unit/logs/folding/test_sameness.py",
    # What is imported, and that every module and every sample can be.
    "unit/cli/test_main.py",
    "unit/test_docs.py",
    "unit/test_dev.py",
    "unit/jobs/test_importable.py",
    # Sockets, buffers and numbers as the standard library has them.
    "unit/changes/decoding/test_decoder.py",
    "unit/serve/test_health.py",
    "unit/jobs/test_journal.py",
)
"""Files of what can differ between versions of Python; that of tests/real is marked `short`, test by test.

What decides in pure code (folding, positions, plans, figures, statements) is the same on each, and run on the newest alone:
types are checked for the oldest.
"""
COSTLIEST = 10
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 8 * 2**30

# The machine may be busy with a server when an example runs: its time says nothing.
settings.register_profile("outlast", deadline=None, print_blob=True)
settings.load_profile("outlast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that are marked long too")
    parser.addoption("--any-python", action="store_true", help="run only what can differ between versions of Python")
    parser.addoption("--rounds", type=int, default=1, metavar="N", help="run each chosen test N times: is it steady?")
    parser.addoption("--schedules", type=int, help="how many schedules tests/sim runs (1,000; 10,000 with --long)")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Costs(), "costs")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        # Under nohup, or in the background of a script, we ignore them, and so would every program that a test starts and
        # signals. What is caught is not inherited.
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    rounds = metafunc.config.getoption("--rounds")
    if rounds > 1:
        metafunc.fixturenames.append("round_number")
        metafunc.parametrize("round_number", range(1, rounds + 1), ids=lambda number: f"round {number}")


@pytest.fixture
def round_number() -> int:
    """Which round of `--rounds` it is; no test depends on it."""
    return 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = [item for item in items if is_chosen(item, config)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs to be root"))


def is_chosen(item: pytest.Item, config: pytest.Config) -> bool:
    if item.get_closest_marker("long") and not config.getoption("--long"):
        return False
    if not config.getoption("--any-python"):
        return True
    if REAL in item.path.parents:
        return item.get_closest_marker("short") is not None
    return item.path.relative_to(HERE).as_posix() in EVERY_PYTHON


class Costs:
    """Measures what each test costs."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before = processor_s()
        outcome = yield
        self.cpu_s[item.nodeid] = processor_s() - before
        return outcome

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        costliest = sorted(self.cpu_s.items(), key=itemgetter(1), reverse=True)[:COSTLIEST]
        terminalreporter.section(f"costliest tests, of {sum(self.cpu_s.values()):.1f} s of processor time")
        for name, cpu_s in costliest:
            terminalreporter.write_line(f"{cpu_s:6.1f} s {name}")


def processor_s() -> float:
    """User and system time of this process and of those that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@pytest.fixture
def schedules(request: pytest.FixtureRequest) -> int:
    """How many schedules the simulator is to run."""
    return request.config.getoption("--schedules") or (10_000 if request.config.getoption("--long") else 1000)


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


@pytest.fixture(scope="session", autouse=True)
def cheap_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let servers keep their files in memory, if there is room for the largest test, and run initdb once a version."""
    templates: dict[Path, Path] = {}
    initialise = ServerFiles.initialise

    def copied(files: ServerFiles, bin_dir: Path) -> None:
        if (files.data / "PG_VERSION").exists():
            return
        if bin_dir in templates:
            subprocess.run(["/bin/cp", "-a", templates[bin_dir], files.data], check=True)
            return
        initialise(files, bin_dir)
        template = tmp_path_factory.mktemp("server") / "data"
        subprocess.run(["/bin/cp", "-a", files.data, template], check=True)
        templates[bin_dir] = template

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerFiles, "initialise", copied)
        if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN:
            patch.setenv(DIRECTORY_VARIABLE, os.environ.get(DIRECTORY_VARIABLE) or str(MEMORY))
        yield


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


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdServer]:
    """One etcd for all tests; no test may break it."""
    with EtcdServer() as server:
        yield server


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own, to be broken."""
    with PostgresServer(settings={"max_connections": "100", "fsync": "off"}) as own:
        yield own
