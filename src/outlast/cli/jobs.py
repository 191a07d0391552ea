"""`outlast jobs`: look into a job queue and act on it."""

from __future__ import annotations

import click


@click.group()
def jobs() -> None:
    """Look into a job queue and act on it."""
