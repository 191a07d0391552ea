"""A strict reader of the text format of Prometheus, and the rules that `promtool check metrics` holds names to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
BASE_UNITS = ("seconds", "bytes", "ratio")
ABBREVIATED = re.compile(r".*_(?:s|ms|us|ns|kb|mb|gb|percent|millis|milliseconds|kilobytes|minutes|hours)(?:_.*)?")


@dataclass
class Family:
    """One name: its kind, its help, and its samples by their labels."""

    kind: str
    text: str
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)


def read(text: str) -> dict[str, Family]:
    """Read a whole answer; AssertionError where it breaks the format or the rules for names."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    name, help_text = "", ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, _, help_text = line.removeprefix("# HELP ").partition(" ")
            assert name not in families, f"{name} comes twice"
            assert help_text, f"{name} has no help"
        elif line.startswith("# TYPE "):
            typed, _, kind = line.removeprefix("# TYPE ").partition(" ")
            assert typed == name, f"{typed} has no help right before its type"
            families[name] = Family(kind, unescaped(help_text))
            check_name(name, kind)
        else:
            sample, labels, value = split(line)
            assert sample == name, f"{sample} stands below {name}"
            assert labels not in families[name].samples, f"{line} comes twice"
            families[name].samples[labels] = value
    return families


def split(line: str) -> tuple[str, tuple[tuple[str, str], ...], float]:
    """The name, the labels and the value of a line."""
    match = NAME.match(line)
    assert match, line
    rest, labels = line[match.end() :], []
    if rest.startswith("{"):
        end = rest.rindex("} ")
        inner, rest = rest[1:end], rest[end + 1 :]
        at = 0
        while at < len(inner):
            label = LABEL.match(inner, at)
            assert label, line
            labels.append((label[1], unescaped(label[2])))
            at = label.end()
        assert labels, f"{line}: no label in the braces"
    assert re.fullmatch(r" (?:NaN|[+-]Inf|-?[0-9.]+(?:e[+-]?[0-9]+)?)", rest), line
    return match[0], tuple(labels), float(rest)


def unescaped(text: str) -> str:
    """Undo the escaping of a label's value."""
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)


def check_name(name: str, kind: str) -> None:
    """Hold the rules that promtool's linter holds."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name
    assert "__" not in name, name
    assert kind in {"counter", "gauge"}, kind
    assert name.endswith("_total") == (kind == "counter"), f"{name} is a {kind}"
    bare = name.removesuffix("_total")
    assert not re.fullmatch(r".*_(?:count|sum|bucket|info|gauge|counter)", bare), name
    assert not ABBREVIATED.fullmatch(bare), name
    for unit in BASE_UNITS:
        assert f"_{unit}_" not in bare, f"{name}: the unit comes last"
