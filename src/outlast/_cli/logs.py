"""`outlast logs`: fold what any program prints."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outlast._cli.errors import CommandError, Exit
from outlast._cli.values import Duration, Names, Size
from outlast.logs import _last_words as last_words

if TYPE_CHECKING:
    from outlast._programs.fold.source import Source
    from outlast.logs.text import TextOptions

STDIN = 0
STDOUT = 1


@click.group()
def logs() -> None:
    """Make a storm of log lines a few lines, with exact counts."""


@logs.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--follow", is_flag=True, help="Go on as FILE grows, is truncated or replaced, like tail -F.")
@click.option(
    "--burst", type=click.IntRange(min=1), default=1, show_default=True, help="So many of a kind are shown before folding."
)
@click.option("--window", type=Duration(), default="5s", show_default=True, help="The first reminder; the next ones double it.")
@click.option("--window-max", type=Duration(), default="15m", show_default=True, help="Reminders come at least this often.")
@click.option("--quiet-after", type=Duration(), default="30s", show_default=True, help="A storm is over when not seen this long.")
@click.option("--keys", type=click.IntRange(min=1), default=50_000, show_default=True, help="So many kinds are kept by name.")
@click.option("--key-fields", type=Names(), default=None, help="Fields of JSON or logfmt that make the key, e.g. level,msg.")
@click.option("--never-fold", default=None, metavar="REGEX", help="Show everything whose key matches; CRITICAL is always shown.")
@click.option("--summaries", type=click.Choice(["auto", "text", "json", "logfmt"]), default="auto", show_default=True)
@click.option("--stats", is_flag=True, help="At the end, write to stderr what was folded.")
@click.option("--report", is_flag=True, help="At the end, list the greatest storms on stderr, with rates and times.")
@click.option("--spool", type=click.Path(file_okay=False, path_type=Path), default=None, help="Keep what is folded there.")
@click.option(
    "--spool-size", type=Size(), default="256M", show_default=True, help="All files of the spool are no larger than this."
)
def fold(
    *,
    file: Path | None,
    follow: bool,
    stats: bool,
    report: bool,
    spool: Path | None,
    spool_size: int,
    **chosen: Any,  # noqa: ANN401 - what `_options` takes
) -> int:
    """Fold standard input, or FILE, to standard output.

    The first record of each kind is shown at once; what repeats is counted, and told by reminders and when it is over. Exit
    code 0: the input ended; 128 + n: signal n came, 141 also when nobody reads the output; 74: output was lost for want of space.
    """
    from outlast._programs.fold.output import Output
    from outlast._programs.fold.pump import Pump
    from outlast._programs.fold.source import keep_buffers
    from outlast._programs.fold.spool import FoldSpool
    from outlast.logs.text import TextFold
    from outlast.logs.text._safely import Safely

    try:
        os.fstat(STDOUT)
    except OSError as error:
        # Otherwise the next file to be opened would take its place.
        raise CommandError("logs fold: standard output is closed; open it, or send it to /dev/null", Exit.USAGE) from error
    keep_buffers()
    source = _source(file, follow=follow)
    options = _options(**chosen)
    began, wall_offset_s = time.monotonic(), time.time() - time.monotonic()
    keeper = None
    if spool is not None:
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
        keeper = FoldSpool(spool, spool_size, _say, began, stamp)
    folding = TextFold(options, wall_offset_s=wall_offset_s, folded=keeper.add if keeper else None)
    code = Pump(source, Safely(folding, _say), Output(STDOUT, _say), _say, keeper).run(STDOUT)
    source.close()
    if stats:
        kept = (
            f"; spool: {keeper.kept} kept, {keeper.dropped} dropped, {keeper.deleted_files} old files deleted" if keeper else ""
        )
        _say(folding.stats.text(time.monotonic() - began) + kept)
    if report:
        _tell(folding.report.text(wall_offset_s))
    return code


def _source(file: Path | None, *, follow: bool) -> Source:
    from outlast._programs.fold.source import Descriptor, Followed

    if file is None or str(file) == "-":
        if follow:
            raise click.UsageError("--follow needs a FILE.")
        return Descriptor(STDIN)
    try:
        return Followed(file) if follow else Descriptor(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise CommandError(f"logs fold: cannot read {file}: {error.strerror}", Exit.NO_INPUT) from error


def _options(
    *,
    burst: int,
    window: float,
    window_max: float,
    quiet_after: float,
    keys: int,
    key_fields: tuple[str, ...] | None,
    never_fold: str | None,
    summaries: str,
) -> TextOptions:
    from outlast._core.fold import FoldPolicy
    from outlast.logs.text import TextOptions

    try:
        re.compile((never_fold or "").encode())
        policy = FoldPolicy(
            burst=burst,
            reminder_first_s=window,
            reminder_max_s=max(window, window_max),
            quiet_s=quiet_after,
            keys_max=keys,
        )
    except re.error as error:
        raise click.UsageError(f"--never-fold {never_fold!r} is no regular expression: {error}.") from error
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    return TextOptions(
        policy,
        key_fields=key_fields or (),
        never_fold=never_fold,
        summaries_as=None if summaries == "auto" else summaries,
    )


def _say(text: str) -> None:
    _tell(f"outlast: logs fold: {' '.join(text.split())}")


def _tell(text: str) -> None:
    """Write to stderr, whatever becomes of it: nobody may be there to read, and what is folded has to go on."""
    last_words.say(text)
