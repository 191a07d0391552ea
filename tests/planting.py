"""Defects that a simulation is to find, planted for a while."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Patch = Callable[[Any, str, Any], None]


@contextmanager
def planted(mutants: Mapping[str, Callable[[Patch], None]], name: str | None) -> Iterator[None]:
    """Inside, the defect of that name is there; None: no defect."""
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, attribute: str, value: Any) -> None:
        undo.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, value)

    if name is not None:
        mutants[name](patch)
    try:
        yield
    finally:
        for owner, attribute, value in reversed(undo):
            setattr(owner, attribute, value)
