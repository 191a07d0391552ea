"""Lets what has a lock and a thread begin again in a child after a fork, where its thread does not run."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that begins again in a child."""

    def begin_again(self) -> None:
        """Make a lock that is free, forget the thread, and leave to the parent what the parent still has to write."""


_all: weakref.WeakSet[Forked] = weakref.WeakSet()
_hooks: list[object] = []


def remember(what: Forked) -> None:
    """Call `what.begin_again` in every child, for as long as `what` lives."""
    _all.add(what)
    if not _hooks:
        # A hook cannot be taken back: one for all.
        _hooks.append(_begin_again)
        os.register_at_fork(after_in_child=_begin_again)


def _begin_again() -> None:
    for what in list(_all):
        what.begin_again()
