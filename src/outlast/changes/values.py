"""Values of the common types, from PostgreSQL's text and binary forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def text_decoder(type_oid: int, *, json: bool = False) -> Callable[[str], object] | None:
    """What makes a Python value of this type's text; None when text is what it stays."""
    return None


def binary_decoder(type_oid: int, *, json: bool = False) -> Callable[[bytes], object] | None:
    """What makes a Python value of this type's binary form; None when it stays a `BinaryValue`."""
    return None
