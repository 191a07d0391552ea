"""`outlast drill`: stage a fault on real servers or disks and measure what services do."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from outlast import OutlastError
from outlast._cli.errors import CommandError, Exit
from outlast._cli.values import Duration, Names

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console

    from outlast._drill.lab.drills import Drill
    from outlast._drill.lab.options import DrillOptions
    from outlast._drill.lab.result import A
    from outlast._drill.shown.live import LiveView, PlainView

F = TypeVar("F", bound=Callable[..., Any])
Chosen = TypeVar("Chosen", bound="DrillOptions")

FAULT_NAMES = ("stop", "freeze", "refuse", "readonly", "kill-backends", "flap", "row-lock", "tablespace-full")
SLOT_FAULT_NAMES = ("slot-taken", "lock-bypassed", "owner-killed", "owner-cut-off", "slot-lost")
TABLE_FAULT_NAMES = ("refused", "cleared", "hangs")
METRICS_FAULT_NAMES = ("taken", "denied")
DISK_FAULT_NAMES = ("full", "full-at-once", "oscillating", "read-only", "eio")
WAYS_TO_RUN = frozenset({"arms", "as_json", "report"})
LIVE_COLUMNS_MIN = 100
"""The live table with its two sparklines is this wide; a narrower terminal gets plain lines."""

DISK_HELP = (
    "The file system: tmpfs, ext4 on a loop device, or one that fails by order; by default the first that the fault knows."
)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def drill() -> None:
    """Stage a fault on real servers or disks and measure what services make of it."""


def _load(words: str, default: int, most: int, meaning: str) -> Callable[[F], F]:
    return click.option(words, "loops", type=click.IntRange(1, most), default=default, show_default=True, help=meaning)


def _loops(default: int) -> Callable[[F], F]:
    return _load("--loops", default, 5000, "Loops that do jobs, in each arm.")


def _options(
    faults: tuple[str, ...], load: Callable[[F], F], warmup: str = "5s", cooldown: str = "10s", outage: str = "20s"
) -> Callable[[F], F]:
    """Return a decorator that adds the options of every drill; the first fault is the default."""
    lasting, shown = Duration(), functools.partial(click.option, show_default=True)
    options = (
        shown("--outage", "outage_s", type=lasting, default=outage, help="How long the fault lasts."),
        shown("--fault", type=click.Choice(faults), default=faults[0], help="What breaks."),
        load,
        click.option("--arms", type=Names(), default=None, help="Which arms, separated by commas; all of them by default."),
        shown("--seed", type=int, default=1, help="Decides every random wait."),
        shown("--warmup", "warmup_s", type=lasting, default=warmup, help="Healthy time before the fault."),
        shown("--cooldown", "cooldown_s", type=lasting, default=cooldown, help="Healthy time after it."),
        click.option(
            "--parallel", is_flag=True, help="Run all arms at once: quicker, but they take the processor from one another."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else, on stdout."),
        click.option("--report", type=_FILE, default=None, help="Write an HTML report there."),
    )
    return lambda command: functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


@drill.command()
@_options(FAULT_NAMES, _loops(50))
@click.option("--dsn", default=None, help="Use this server rather than launching one; an own database is made and dropped.")
def coder(**chosen: Any) -> int:  # noqa: ANN401
    """Take PostgreSQL away from fifty job loops, and bring it back.

    The same job service in five arms: naive, coder-fixed, tenacity, procrastinate, outlast. Exit code 0: the outlast arm
    kept what the drill promises; 1: it broke a promise; 2: the naive arm did not storm, so the drill proves nothing.
    """
    _require_packages(report=chosen["report"] is not None)
    from outlast._drill.coder.drill import CODER, CoderOptions

    return _carry_out(CODER, CoderOptions, **chosen)


@drill.command()
@_options(SLOT_FAULT_NAMES, _loops(20))
def electric(**chosen: Any) -> int:  # noqa: ANN401
    """Take its slot, its lock or its owner from a change stream, beside other loops of the same service.

    The same service in three arms: naive, backoff, outlast. Exit code 0: the outlast arm kept what the drill promises; 1: it
    broke a promise; 2: the naive arm did not storm, so the drill proves nothing.
    """
    _require_packages(report=chosen["report"] is not None)
    from outlast._drill.electric.drill import ELECTRIC, ElectricOptions

    return _carry_out(ELECTRIC, ElectricOptions, **chosen)


@drill.command()
@_options(DISK_FAULT_NAMES, _load("--producers", 8, 400, "Clients that append to the log of each arm."), "3s", "5s")
@click.option("--disk", type=click.Choice(["tmpfs", "ext4", "faulty"]), default=None, help=DISK_HELP)
@click.option("--size", "size_mib", type=click.IntRange(16, 4096), default=64, show_default=True, help="The disk's size in MiB.")
def fluvio(**chosen: Any) -> int:  # noqa: ANN401
    """Fill or break the disk under a log, and mend it.

    Eight producers push. The same log in five arms: naive, fluvio-fixed, outlast, outlast-http, rakaia, each on a small disk of
    its own, which is mounted as root or else as root of a user namespace. Exit code 0: both outlast arms kept what the drill
    promises; 1: one broke a promise; 2: the naive arm did not storm, so the drill proves nothing; 77: no such disk can be made.
    """
    _require_packages(report=chosen["report"] is not None, wanted=("psutil", "google_crc32c", "httptools"))
    from outlast._drill.fluvio.drill import FLUVIO, FluvioOptions, command_with_rights
    from outlast._drill.lab.errors import DrillSkipped

    try:
        command = command_with_rights([sys.executable, "-m", "outlast", *sys.argv[1:]])
    except DrillSkipped as error:
        raise CommandError(f"drill fluvio: skipped: {error}", Exit.SKIPPED) from error
    if command is not None:
        os.execvp(command[0], command)  # noqa: S606  the same command, in a namespace of its own
    return _carry_out(FLUVIO, FluvioOptions, **chosen)


@drill.command()
@_options(
    (*TABLE_FAULT_NAMES, *METRICS_FAULT_NAMES),
    _load("--writes", 500, 20_000, "Writes a second to the table that cannot be made."),
    "3s",
    "9s",
    "8s",
)
@click.option(
    "--over",
    type=click.Choice(["socket", "http"]),
    default="socket",
    show_default=True,
    help="What arms speak: http is a server of metrics that collectors write to (faults taken and denied; 4s, 4s and 12s).",
)
@click.option("--quota", "quota_mib", type=click.IntRange(2, 2048), default=16, show_default=True, help="Quota of etcd in MiB.")
@click.pass_context
def greptime(context: click.Context, /, *, over: str, **chosen: Any) -> int:  # noqa: ANN401
    """Write to one table that cannot be made, beside others that can.

    The same service in six arms: naive, capped, procrastinate, dbos, outlast, outlast-postgres, each with an etcd or a PostgreSQL
    of its own. Over http in four: naive, naive-postgres, outlast, outlast-postgres. Exit code 0: both outlast arms kept what the
    drill promises; 1: one broke a promise; 2: the naive arm did not fill its etcd, or did not log each write, so the drill
    proves nothing.
    """
    if over == "http":
        _require_packages(report=chosen["report"] is not None, wanted=("psycopg", "psutil", "httptools"))
        from outlast._drill.greptime.http.drill import METRICS, MetricsOptions

        # The defaults of the other one are not meant: this drill has its own.
        given = {name: value for name, value in chosen.items() if name in WAYS_TO_RUN or _is_given(context, name)}
        given.pop("quota_mib", None)
        return _carry_out(METRICS, MetricsOptions, **given)
    _require_packages(report=chosen["report"] is not None, wanted=("psycopg", "psutil", "httpx2"))
    from outlast._drill.greptime.drill import GREPTIME, GreptimeOptions

    return _carry_out(GREPTIME, GreptimeOptions, **chosen)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _carry_out(
    drill: Drill[Chosen, A],
    options_of: type[Chosen],
    *,
    as_json: bool,
    report: Path | None,
    arms: tuple[str, ...] | None,
    **chosen: Any,  # noqa: ANN401
) -> int:
    from rich.console import Console

    from outlast._drill.lab.errors import DrillSkipped, DrillUsageError

    options = options_of(arms=tuple(options_of.kinds) if arms is None else arms, **chosen)
    if report is not None and not report.absolute().parent.is_dir():
        raise CommandError(f"cannot write the report {report}: {report.absolute().parent} is no directory", Exit.USAGE)
    progress = Console(stderr=True)
    try:
        options.validate()
        with _signals_end_it(), _view(progress, drill, options) as view:
            result = drill.run(options, view)
    except DrillUsageError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    except DrillSkipped as error:
        raise CommandError(f"drill {options.drill}: skipped: {error}", Exit.SKIPPED) from error
    except OutlastError as error:
        raise CommandError(f"drill {options.drill}: {error}", Exit.UNAVAILABLE) from error
    if report is not None:
        from outlast._drill.shown.report import write_report

        write_report(drill, result, report)
    if as_json:
        click.echo(result.dumps(), nl=False)
    else:
        from outlast._drill.shown.summary import print_summary

        print_summary(drill, result, Console())
    if report is not None:
        progress.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    return result.exit_code


def _require_packages(*, report: bool, wanted: tuple[str, ...] = ("psycopg", "psutil")) -> None:
    from importlib.util import find_spec

    pictures = ("matplotlib", "jinja2") if report else ()
    missing = [name for name in (*wanted, *pictures) if find_spec(name) is None]
    if missing:
        msg = f'the drill needs {", ".join(missing)}; pip install "outlast[drill]"'
        raise CommandError(msg, Exit.CONFIGURATION)


@contextlib.contextmanager
def _signals_end_it() -> Generator[None]:
    """Let SIGTERM and SIGHUP end the drill as Ctrl-C does, so that no server is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _view(console: Console, drill: Drill[Any, Any], options: DrillOptions) -> LiveView | PlainView:
    from outlast._drill.shown.live import LiveView, PlainView

    if not console.is_terminal or console.width < LIVE_COLUMNS_MIN or os.environ.get("TERM") == "dumb":
        return PlainView(console, drill.series)
    title = f"drill {options.drill}: {options.fault} {options.outage_s:g} s, {options.loops} {options.workers}"
    return LiveView(console, options.arms, options.planned_s, title, drill.series)
