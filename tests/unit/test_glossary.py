"""docs/words.md names what there is, and one thing each."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import outlast

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "words.md").read_text(encoding="utf-8")
TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "src").rglob("*.py"))]
ENTRIES = re.findall(r"^- (.*(?:\n  .*)*)", PAGE, re.MULTILINE)
WORDS = [word for entry in ENTRIES for word in re.findall(r"\*\*([\w ]+)\*\*", entry)]


def parts(name: str) -> set[str]:
    """The words that a name of Python is put together from, in lower case."""
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def names_in_code() -> set[str]:
    found: set[str] = set()
    for tree in TREES:
        for node in ast.walk(tree):
            for key in ("name", "id", "attr", "arg"):
                name = getattr(node, key, None)
                if isinstance(name, str):
                    found.add(name)
    return found


PARTS = {part for name in names_in_code() for part in parts(name)}
CLASSES = Counter(node.name for tree in TREES for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def stem(word: str) -> str:
    return word.lower().removesuffix("d").removesuffix("e") if word[0].islower() else word.lower()


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_used_in_the_code(word: str) -> None:
    """A verb may stand there in another form."""
    for part in word.split():
        assert any(name.startswith(stem(part)) for name in PARTS), f"{word}: nothing in src is called so: delete it, or use it"


@pytest.mark.parametrize("word", sorted(set(WORDS)))
def test_a_word_is_explained_once_and_is_one_class(word: str) -> None:
    assert WORDS.count(word) == 1
    assert CLASSES[word] <= 1, f"{CLASSES[word]} classes are called {word}: rename those that docs/words.md does not mean"


def table(heading: str) -> list[str]:
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `(\w+)`", section, re.MULTILINE)


def test_the_tables_have_every_kind_and_every_state() -> None:
    assert table("The kinds of faults") == [kind.name for kind in outlast.Kind]
    assert table("The states of a dependency") == [state.name for state in outlast.State]


def test_phases_are_named_in_their_order() -> None:
    (named,) = re.findall(r"\*\*Phase\*\*: .*?: ([\w, ]+)\.", PAGE)
    assert named.split(", ") == [phase.value for phase in outlast.Phase]
