"""The outcome of a check, in values that JSON can hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. The records `position` to `next` - 1 cannot be read; where both are equal, none is lost."""

    stream: str
    """The name, empty where it is not known."""
    folder: str
    """The folder below `streams`, named by the id of the stream."""
    segment: str
    """The file in it: a segment, an index, or `meta`."""
    position: int
    next: int
    what: str
    """The thing that is wrong."""
    repair: str
    """The thing that a repair does about it. Empty: it can do nothing, and what can be done stands in `what`."""
    is_repaired: bool = False

    def __str__(self) -> str:
        lost = f", records {self.position} to {self.next - 1} are lost" if self.next > self.position else ""
        act = "" if not self.repair else f"; {'done' if self.is_repaired else 'a repair'}: {self.repair}"
        return f"stream {self.stream!r} ({self.folder}), {self.segment}, position {self.position}: {self.what}{lost}{act}"


@dataclass(frozen=True, slots=True)
class Report:
    """All that was read and all that was found. After a repair: what was found before it."""

    path: str
    findings: tuple[Finding, ...]
    streams: int
    segments: int
    records: int
    """Those that were read and are whole, also trimmed ones whose segment is still there."""
    size_bytes: int
    """Bytes of the segments."""
    is_running: bool
    """Whether a process held the streams meanwhile: what it was about to write is no finding."""

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings
