"""`outlast up MODULE:service`: run a service as this process."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from outlast import ConfigurationError, Service, run
from outlast._cli.errors import CommandError, Exit
from outlast.logs import _last_words as last_words

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType, ModuleType


def process_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of a command that runs a service as the process: those of `outlast.run`, without its address."""
    for option in (
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            help="How logs are written to stderr, if nothing else configures it: text (the default), or one JSON object a line.",
        ),
        click.option(
            "--fold-logs/--no-fold-logs",
            default=True,
            show_default=True,
            help="Fold WARNINGs and ERRORs that loggers repeat; see docs/logs.md.",
        ),
        click.option(
            "--report",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write how the stop went to this file, as JSON.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("target", metavar="MODULE:SERVICE")
@click.option(
    "--listen", metavar="ADDRESS", help="Answer /livez, /readyz, /statusz and /metrics on HOST:PORT; PORT alone is on loopback."
)
@process_options
@click.option("--traceback", "show_traceback", is_flag=True, help="Show the whole traceback when the module fails to load.")
def up(
    target: str, *, listen: str | None, report: Path | None, fold_logs: bool, log_format: str | None, show_traceback: bool
) -> int:
    """Run SERVICE of MODULE until SIGTERM or SIGINT.

    The current directory is importable. SERVICE may be an attribute path (app.service) and may be a function without
    arguments that returns a service. The first SIGTERM or SIGINT stops it within its deadline, a second one hurries, SIGQUIT
    ends it at once. Exits with the service's own code: 0 clean, 70 too many bugs, 74 a fatal fault, 75 something did not
    finish, 131 SIGQUIT; 64 for bad usage and 78 for what cannot be loaded or listened on.
    """
    with early_signals():
        service = load_service(target, show_traceback=show_traceback)
        try:
            return run(service, listen=listen, report=report, fold_logs=fold_logs, log_format=log_format)
        except ConfigurationError as error:
            raise CommandError(f"{target}: {error}", Exit.CONFIGURATION) from error


@contextlib.contextmanager
def early_signals() -> Generator[None]:
    """End the process with exit code 0 at SIGTERM and SIGINT, until the service takes over: nothing has begun."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        last_words.say(f"outlast: {signal.Signals(number).name} before the service had started: nothing to stop")
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def load_service(target: str, *, show_traceback: bool = False) -> Service:
    """Import the service named `package.module:name`; raises CommandError with the reason in one line."""
    module_name, colon, path = target.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        msg = f"{target!r} does not name a service; write MODULE:SERVICE, as in shop.worker:service"
        raise CommandError(msg, Exit.USAGE)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    module = _import(module_name, target, show_traceback=show_traceback)
    return _service_of(module, path, target)


def _import(name: str, target: str, *, show_traceback: bool) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        if show_traceback:
            traceback.print_exc()
        if isinstance(error, ModuleNotFoundError) and error.name and (name == error.name or name.startswith(error.name + ".")):
            msg = f"cannot load {target}: there is no module {error.name!r}, neither in {Path.cwd()} nor installed"
            raise CommandError(msg, Exit.CONFIGURATION) from error
        if isinstance(error, ConfigurationError):
            raise CommandError(f"cannot load {target}: {error}", Exit.CONFIGURATION) from error
        msg = f"cannot load {target}: importing it raised {type(error).__name__}: {error}{_place(error)}; --traceback shows more"
        raise CommandError(msg, Exit.CONFIGURATION) from error


def _place(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    # The first frames are ours and importlib's; when nothing comes after them, the module itself could not be read.
    last = frames[-1]
    return f" ({last.filename}:{last.lineno})" if last.filename not in {importlib.__file__, __file__} else ""


def _service_of(module: ModuleType, path: str, target: str) -> Service:
    found: object = module
    for part in path.split("."):
        if not hasattr(found, part):
            services = ", ".join(name for name, value in vars(module).items() if isinstance(value, Service)) or "none"
            msg = f"cannot load {target}: {module.__name__} has no {path!r}; services in it: {services}"
            raise CommandError(msg, Exit.CONFIGURATION)
        found = getattr(found, part)
    if callable(found) and not isinstance(found, Service):
        found = _made(found, target)
    if not isinstance(found, Service):
        msg = f"cannot load {target}: it is a {type(found).__name__}, not an outlast.Service"
        raise CommandError(msg, Exit.CONFIGURATION)
    return found


def _made(factory: object, target: str) -> object:
    try:
        return factory() if callable(factory) else None
    except Exception as error:
        msg = f"cannot load {target}: calling it raised {type(error).__name__}: {error}{_place(error)}"
        raise CommandError(msg, Exit.CONFIGURATION) from error
