"""The root command. Its subcommands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import sys
from typing import Any

import click

import outlast
from outlast.cli.drill import drill
from outlast.cli.exits import EXIT_INTERRUPTED, EXIT_USAGE
from outlast.cli.jobs import jobs
from outlast.cli.up import up


class RootGroup(click.Group):
    """A group whose usage errors exit with 64: click's own 2 means something else after a drill."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run, and exit unless `standalone_mode` is off."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except click.UsageError as exc:
            exc.show()
            sys.exit(EXIT_USAGE)
        except click.ClickException as exc:
            exc.show()
            sys.exit(exc.exit_code)
        except click.Abort:
            click.echo("Interrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=RootGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(outlast.__version__, prog_name="outlast")
def root() -> None:
    """Keep long-running services standing when what they depend on fails.

    \b
    Examples:
      outlast up shop:service            run a service until SIGTERM
      outlast drill coder --outage 60s   take its database away, and measure
      outlast jobs counts                look into a job queue
    """


root.add_command(up)
root.add_command(drill)
root.add_command(jobs)
