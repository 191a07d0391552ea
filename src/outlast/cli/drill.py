"""`outlast drill`: stage a fault on real servers and measure what services do."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outlast import OutlastError
from outlast.cli.errors import CommandError, Exit
from outlast.cli.values import Duration, Names

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console

    from outlast.drill.coder import CoderOptions
    from outlast.drill.live import LiveView, PlainView

FAULT_NAMES = ("stop", "freeze", "refuse", "readonly", "kill-backends", "flap")
SLOT_FAULT_NAMES = ("slot-taken", "lock-bypassed", "owner-killed", "owner-cut-off", "slot-lost")
LIVE_COLUMNS_MIN = 100
"""The live table with its two sparklines is this wide; a narrower terminal gets plain lines."""


@click.group()
def drill() -> None:
    """Stage a fault on real servers and measure what services make of it."""


@drill.command()
@click.option("--outage", "outage_s", type=Duration(), default="20s", show_default=True, help="How long the fault lasts.")
@click.option("--fault", type=click.Choice(FAULT_NAMES), default="stop", show_default=True, help="What breaks.")
@click.option("--loops", type=click.IntRange(min=1, max=5000), default=50, show_default=True, help="Job loops in each arm.")
@click.option("--arms", type=Names(), default=None, help="Which arms, separated by commas; all of them by default.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides every random wait of the fault.")
@click.option("--dsn", default=None, help="Use this server rather than launching one; an own database is made and dropped.")
@click.option("--warmup", "warmup_s", type=Duration(), default="5s", show_default=True, help="Healthy time before the fault.")
@click.option("--cooldown", "cooldown_s", type=Duration(), default="10s", show_default=True, help="Healthy time after it.")
@click.option("--parallel", is_flag=True, help="Run all arms at once: quicker, but they take the processor from one another.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else, on stdout.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write an HTML report there.")
def coder(*, as_json: bool, report: Path | None, arms: tuple[str, ...] | None, **chosen: Any) -> int:  # noqa: ANN401
    """PostgreSQL goes away under fifty job loops, and comes back.

    The same job service in five arms: naive, coder-fixed, tenacity, procrastinate, outlast. Exit code 0: the outlast arm
    kept what the drill promises; 1: it broke a promise; 2: the naive arm did not storm, so the drill proves nothing.
    """
    _require_packages(report=report is not None)
    from rich.console import Console

    from outlast.drill.coder import ARMS, CoderOptions, run_coder_drill
    from outlast.drill.errors import DrillUsageError

    options = CoderOptions(arms=arms or tuple(ARMS), **chosen)
    if report is not None and not report.absolute().parent.is_dir():
        raise CommandError(f"cannot write the report {report}: {report.absolute().parent} is no directory", Exit.USAGE)
    progress = Console(stderr=True)
    cancel = threading.Event()
    try:
        options.validate()
        with _signals_end_it(), _view(progress, options) as view:
            result = run_coder_drill(options, view, cancel)
    except DrillUsageError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    except OutlastError as error:
        raise CommandError(f"drill coder: {error}", Exit.UNAVAILABLE) from error
    if report is not None:
        from outlast.drill.report import write_report

        write_report(result, report)
    if as_json:
        click.echo(result.dumps(), nl=False)
    else:
        from outlast.drill.summary import print_summary

        print_summary(result, Console())
    if report is not None:
        progress.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    return result.exit_code


@drill.command()
@click.option("--outage", "outage_s", type=Duration(), default="20s", show_default=True, help="How long the fault lasts.")
@click.option("--fault", type=click.Choice(SLOT_FAULT_NAMES), default="slot-taken", show_default=True, help="What breaks.")
@click.option("--loops", type=click.IntRange(1, 1000), default=20, show_default=True, help="Other loops of the service.")
@click.option("--arms", type=Names(), default=None, help="Which arms, separated by commas; all of them by default.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides every random wait of the outlast arm.")
@click.option("--warmup", "warmup_s", type=Duration(), default="5s", show_default=True, help="Healthy time before the fault.")
@click.option("--cooldown", "cooldown_s", type=Duration(), default="10s", show_default=True, help="Healthy time after it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else, on stdout.")
def electric(*, as_json: bool, arms: tuple[str, ...] | None, **chosen: Any) -> int:  # noqa: ANN401
    """A change stream loses its slot, its lock or its owner, beside other loops of the same service.

    The same service in three arms: naive, backoff, outlast. Exit code 0: the outlast arm kept what the drill promises; 1: it
    broke a promise; 2: the naive arm did not storm, so the drill proves nothing.
    """
    _require_packages(report=False)
    from outlast.drill.electric import ELECTRIC_ARMS, ElectricOptions, run_electric_drill
    from outlast.drill.errors import DrillUsageError

    options = ElectricOptions(arms=arms or tuple(ELECTRIC_ARMS), **chosen)
    try:
        options.validate()
        with _signals_end_it():
            result = run_electric_drill(options)
    except DrillUsageError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    except OutlastError as error:
        raise CommandError(f"drill electric: {error}", Exit.UNAVAILABLE) from error
    if as_json:
        click.echo(result.dumps(), nl=False)
    else:
        from rich.console import Console

        from outlast.drill.electric_summary import print_electric_summary

        print_electric_summary(result, Console())
    return result.exit_code


def _require_packages(*, report: bool) -> None:
    from importlib.util import find_spec

    wanted = ["psycopg", "psutil", *(["matplotlib", "jinja2"] if report else [])]
    missing = [name for name in wanted if find_spec(name) is None]
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


def _view(console: Console, options: CoderOptions) -> LiveView | PlainView:
    from outlast.drill.live import LiveView, PlainView

    if not console.is_terminal or console.width < LIVE_COLUMNS_MIN or os.environ.get("TERM") == "dumb":
        return PlainView(console)
    title = f"drill coder: {options.fault} {options.outage_s:g} s, {options.loops} loops"
    return LiveView(console, options.arms, options.planned_s, title)
