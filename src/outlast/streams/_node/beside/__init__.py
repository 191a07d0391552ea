"""Beside the protocol: lists, records one by one, trim, consumers, usage, `verify`; and the figures of a node."""

from __future__ import annotations

from outlast.streams._node.beside.app import Beside
from outlast.streams._node.beside.shown import NodeCounts, ShownNode

__all__ = ["Beside", "NodeCounts", "ShownNode"]
