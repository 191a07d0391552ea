"""`outlast tables`: serve tables to collectors, look at them, ask for their points, drop them."""

from __future__ import annotations

from outlast._cli.tables import change, look, query, serve
from outlast._cli.tables.group import tables

__all__ = ["tables"]

serve.add_to(tables)
look.add_to(tables)
query.add_to(tables)
change.add_to(tables)
