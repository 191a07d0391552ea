"""`outlast procedures`: look at the procedures in a store, and act on them."""

from __future__ import annotations

from outlast._cli.procedures import change, look
from outlast._cli.procedures.group import procedures

__all__ = ["procedures"]

look.add_to(procedures)
change.add_to(procedures)
