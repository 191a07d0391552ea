"""The group of commands. Each command's module is imported when the command is used."""

from __future__ import annotations

import importlib
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from outlast import OutlastError, __version__
from outlast._cli.errors import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "up": ("outlast._cli.up", "up"),
        "drill": ("outlast._cli.drill", "drill"),
        "jobs": ("outlast._cli.jobs", "jobs"),
        "changes": ("outlast._cli.changes", "changes"),
        "procedures": ("outlast._cli.procedures", "procedures"),
        "streams": ("outlast._cli.streams", "streams"),
        "tables": ("outlast._cli.tables", "tables"),
        "guard": ("outlast._cli.guard", "guard"),
        "logs": ("outlast._cli.logs", "logs"),
    }
)


class OutlastGroup(click.Group):
    """Loads commands when they are used, and turns every mistake into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        return command if isinstance(command, click.Command) else None

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's own arguments, handed on
        """Run a command, and exit with what it returns: raises SystemExit."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except click.UsageError as error:
            _show_usage(error)
            code = Exit.USAGE
        except CommandError as error:
            error.show()
            code = error.code
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("outlast: interrupted", err=True)
            code = Exit.INTERRUPTED
        except OutlastError as error:
            CommandError(str(error), Exit.UNAVAILABLE).show()
            code = Exit.UNAVAILABLE
        sys.exit(int(code or 0))


def _show_usage(error: click.UsageError) -> None:
    where = error.ctx.command_path if error.ctx else "outlast"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    text = " ".join(error.format_message().split())
    end = "" if text.endswith((".", "?", "!")) else "."
    click.echo(f"outlast: {text}{end} See {where} --help.", err=True)


@click.group(cls=OutlastGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="outlast", message="%(prog)s %(version)s")
def app() -> None:
    """Keep a long-running service standing when what it depends on fails."""
