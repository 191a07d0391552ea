"""Folding of what any program prints: text, JSON lines, logfmt. Bytes in, bytes out; the time is given."""

from outlast.logs.text._stream import TextFold, TextOptions

__all__ = ["TextFold", "TextOptions"]
