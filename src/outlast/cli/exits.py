"""Exit codes of the command line; the numbers are those of sysexits.h."""

from __future__ import annotations

from typing import Final

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 64
"""The command was typed wrong."""
EXIT_UNAVAILABLE: Final = 69
"""Something the command needs is down."""
EXIT_CONFIGURATION: Final = 78
"""Something it was pointed at is not there or not usable."""
EXIT_INTERRUPTED: Final = 130
"""Ctrl-C, as a shell reports it: 128 and the signal's number."""
EXIT_TERMINATED: Final = 143
