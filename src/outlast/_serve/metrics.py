"""The guard's figures in the text format of Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from outlast._serve.server import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric: its name without the prefix, its kind, what it says, and a value for each set of labels."""

    name: str
    kind: str
    text: str
    values: Sequence[tuple[dict[str, str], float]]


def one(name: str, kind: str, text: str, value: float) -> Figure:
    """A metric without labels."""
    return Figure(name, kind, text, [({}, value)])


def page(text: str) -> Answer:
    """Return the answer of `/metrics`."""
    return Answer(HTTPStatus.OK, CONTENT_TYPE, text)


def exposition(figures: Sequence[Figure]) -> str:
    """Write them, version 0.0.4 of the format: a name, its help and type, and its samples; a line feed at the end."""
    lines: list[str] = []
    for figure in figures:
        name = f"outlast_guard_{figure.name}"
        lines += [f"# HELP {name} {figure.text}", f"# TYPE {name} {figure.kind}"]
        for labels, value in figure.values:
            told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            lines.append(f"{name}{{{told}}} {value:.15g}" if told else f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
