"""`outlast guard -- PROGRAM ARGS`: run any program under guard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outlast._cli.errors import CommandError, Exit
from outlast._cli.values import Address, Duration, Size
from outlast._core.faults import ConfigurationError

if TYPE_CHECKING:
    from outlast._programs.guard.options import Options

    _Limit = click.ParamType[int | None]
else:
    # Older versions of click have no type argument here.
    _Limit = click.ParamType


class Count(_Limit):
    """A number, or `unlimited`."""

    name = "count"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number, or None for `unlimited`."""
        text = str(value)
        if text == "unlimited":
            return None
        if not text.isascii() or not text.isdigit():
            self.fail(f"{value!r} is not a number of restarts; write it as 8, or unlimited", param, ctx)
        return int(text)


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- PROGRAM [ARGS]...")
@click.option("--restart", type=click.Choice(["never", "on-failure", "always"]), default="never", show_default=True)
@click.option("--restarts-max", type=Count(), default="8", show_default=True, help="More than these end the guard …")
@click.option("--restarts-within", type=Duration(), default="60s", show_default=True, help="… when they fall within this time.")
@click.option("--wait-max", type=Duration(), default="30s", show_default=True, help="The longest wait before a restart.")
@click.option("--healthy-after", type=Duration(), default="30s", show_default=True, help="A run this long resets the waits.")
@click.option("--stop-after", type=Duration(), default="10s", show_default=True, help="From SIGTERM to SIGKILL.")
@click.option("--fold/--no-fold", default=True, show_default=True, help="Whether repeated lines become counts.")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write both outputs there, too.")
@click.option("--log-only", is_flag=True, help="Write them nowhere else.")
@click.option("--log-size", type=Size(), default="64M", show_default=True, help="Rotate a file that is as large.")
@click.option("--log-age", type=Duration(), default="24h", show_default=True, help="Rotate a file that is as old.")
@click.option("--log-files", type=click.IntRange(0, 9999), default=10, show_default=True, help="Rotated files that are kept.")
@click.option("--log-share", type=click.FloatRange(0, 100, min_open=True), default=20.0, show_default=True,
              help="Percent of the available disk space that the log may take.")  # fmt: skip
@click.option("--listen", type=Address(), default=None, metavar="HOST:PORT", help="Answer /readyz, /livez and /metrics there.")
@click.option("--ready-after", type=Duration(), default="1s", show_default=True, help="A program that runs this long is ready.")
@click.option("--spin-after", type=Duration(), default="30s", show_default=True,
              help="Warn of a process that keeps a core busy this long; 0 never does.")  # fmt: skip
def guard(**chosen: Any) -> int:  # noqa: ANN401 - the options above
    """Run PROGRAM, without a shell, and look after it.

    What it writes is folded: repeated lines become one line and a count. stdout and stderr stay apart. Signals are
    forwarded, and nothing that it started is left behind. A reader that is slow and a disk that is full never hold it up.

    Exits with the program's own code, 128 + n when signal n ended it; 127 when there is no such program, 126 when it
    cannot be run, 64 for bad usage, 78 when the log file or the address cannot be used.
    """
    from outlast._programs.guard.run import run

    try:
        return run(_options(**chosen))
    except ConfigurationError as error:
        raise CommandError(str(error), Exit.CONFIGURATION) from error


def _options(
    *,
    command: tuple[str, ...],
    restart: str,
    restarts_max: int | None,
    restarts_within: float,
    wait_max: float,
    healthy_after: float,
    stop_after: float,
    log_only: bool,
    log_size: int,
    log_age: float,
    log_files: int,
    log_share: float,
    spin_after: float,
    **others: Any,  # noqa: ANN401 - options that are handed on by their names
) -> Options:
    from outlast._core.backoff import Backoff
    from outlast._core.intensity import Restart
    from outlast._programs.guard.options import Options
    from outlast._programs.guard.rotation import Limits
    from outlast._programs.guard.spin import SpinLimits
    from outlast._programs.guard.supervisor import Rules, When

    if log_only and others["log"] is None:
        raise click.UsageError("--log-only needs --log FILE: the output would go nowhere.")
    try:
        backoff = Backoff(base_s=min(0.1, wait_max), cap_s=wait_max, sustained_s=healthy_after)
        intensity = Restart(restarts_max, restarts_within)
        limits = Limits(log_size, log_age, log_files, log_share / 100)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    return Options(
        command=command,
        rules=Rules(When(restart), backoff, intensity, stop_after),
        log_limits=limits,
        log_only=log_only,
        listen=others["listen"],
        ready_after_s=others["ready_after"],
        spin=SpinLimits(enter_s=spin_after) if spin_after else None,
        fold=others["fold"],
        log=others["log"],
    )
