"""`outlast streams`: look at the streams in a folder, and act on them."""

from __future__ import annotations

from outlast._cli.streams import change, look, serve
from outlast._cli.streams.group import streams

__all__ = ["streams"]

look.add_to(streams)
change.add_to(streams)
serve.add_to(streams)
