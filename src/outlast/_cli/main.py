"""Entry point of the command `outlast`; says what to install where click or rich is missing."""

from __future__ import annotations

import importlib.util
import sys

EXIT_MISSING = 78
"""EX_CONFIG of sysexits.h, as for everything else that cannot be loaded."""


def main() -> int:
    """Run the command with the process's arguments; return the exit code. For a mistake write one line and no traceback."""
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"outlast: the command needs {' and '.join(missing)}, which Python {sys.executable} does not have;"
            ' pip install "outlast[cli]"',
            file=sys.stderr,
        )
        return EXIT_MISSING
    from outlast._cli.app import app

    try:
        app.main(prog_name="outlast")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0
