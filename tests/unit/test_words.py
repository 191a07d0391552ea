"""Docstrings, comments, messages and documents are in plain English: what is not written here, and what to write instead."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Rule:
    """Something not to write, what to write instead, and samples of both."""

    found: re.Pattern[str]
    instead: str
    wrong: tuple[str, ...]
    right: tuple[str, ...]


def word(pattern: str) -> re.Pattern[str]:
    """A pattern between the ends of words; a space in it is any white space."""
    return re.compile(rf"\b(?:{pattern})\b".replace(" ", r"\s+"), re.IGNORECASE)


PROSE = (
    Rule(
        word(r"gives(?! (?:up|way|in|rise)\b)"),
        "returns, yields, raises, makes, hands over",
        ("It gives the row.", "Gives None"),
        ("It gives up after 3 s.", "It gives way to the other.", "give the row"),
    ),
    Rule(
        word("he|him|his|himself|she|her|hers|herself"),
        "it, its (a program); they, their (a person)",
        ("what he is given", "His own place"),
        ("what it is given", "the", "this", "cipher"),
    ),
    Rule(word("anew"), "again", ("begins anew",), ("begins again", "a new slot", "renew")),
    Rule(word("for ever"), "forever", ("wait for ever", "wait for\n    ever"), ("wait forever", "for everyone")),
    Rule(
        word("whereupon|whereof|whereby|wherein|wherefore|whence|whither|thereof|thereby|therein|thereto|therefrom|thereafter"),
        "a new sentence: then, of it, by it, in it, from it, after it",
        ("the end thereof", "Whereupon it ends."),
        ("the end of it", "where", "therefore"),
    ),
    Rule(
        word("hitherto|heretofore|henceforth|hence|thence|hereby|herein"),
        "until now, from now on, so, by this, in this",
        ("hitherto unknown", "Hence it waits."),
        ("unknown until now", "so it waits", "here"),
    ),
    Rule(
        word("lest|albeit|whilst|amongst|unto|ere|nought|naught|oneself|whatsoever|whosoever"),
        "so that … not, although, while, among, to, before, nothing, yourself, whatever, whoever",
        ("lest it stood still", "whilst it waits"),
        ("so that it does not stand still", "while it waits", "at least", "where"),
    ),
    Rule(
        re.compile(r"(?<!twice )(?<!times )(?<!half )\bas long\b(?!\s+as\b)", re.IGNORECASE),
        "the same length, for the same time",
        ("its place is kept as long", "as long nothing happens"),
        ("as long as it runs", "after twice as long", "for the same time"),
    ),
    Rule(
        word("carry what the caller needs|say what it needs"),
        "what it promises (units, ranges, errors), or nothing",
        ("Carry what the caller needs.",),
        ("What the caller needs is carried by Use.",),
    ),
)
"""Of docstrings, comments, messages and documents alike."""

HEADLESS = "What|Whatever|Whose|Who|Whoever|Whom|How|Where|When|Which|Why"

ANY_FIRST = Rule(
    re.compile(rf"\A(?:{HEADLESS})\b"),
    "a noun phrase or a verb: `The state of …`, `Waits until …`",
    ("What one run came to.", "Who waits now."),
    ("The outcome of one run.", "Whether it runs.", "Whatsit of the day"),
)
"""Of every docstring: of modules, classes, attributes, properties and functions."""

FUNCTION_FIRST = (
    Rule(
        re.compile(r"\A(?:Whether|True|False|If)\b"),
        "`Return whether …`, or the verb of what it does and then `return whether …`",
        ("Whether it runs.", "True when it was let go."),
        ("Return whether it runs.",),
    ),
    Rule(
        re.compile(r"\A(?:Give|Tell|Have|Be)\b"),
        "Return, Yield, Record, Log, Let, Make: a verb that says what it does",
        ("Give the row.", "Have nothing.", "Be forgotten."),
        ("Return the row.", "Begin again.", "Given a row, return it."),
    ),
    Rule(
        re.compile(
            r"\A(?:The|An?|This|That|These|Those|It|Its|They|Their|There|Our|Ours|We|So|Not|Never|No|None|Nothing|Nobody|"
            r"Something|Everything|Everyone|Every|Each|All|Any|Both|One|Two|Three|Four|Half|Only|Exact|Short|Up|As|At|About|"
            r"After|Before|Between|By|For|From|In|Inside|Of|On|Once|Out|Over|Since|Through|Under|Until|Upon|While|With|Without|"
            r"Yet)\b"
        ),
        "a verb in the imperative: `Return the …`, `Record …`, `Wait until …`",
        ("The version of the server.", "As the other.", "Nothing happens here.", "A copy."),
        ("Return the version of the server.", "Answer a question.", "Offer one."),
    ),
    Rule(
        re.compile(r"\A(?:[A-Z][a-z]*[^\Ws]s\b|[A-Z][A-Z_]+\b|[^A-Z])"),
        "a verb in the imperative, no plural, third person, name or number: `Return the …`",
        ("Returns the row.", "Bytes as people read them.", "`stamp` makes names unique.", "SIGKILL, as a machine would."),
        ("Return the row.", "Pass it on.", "Process one.", "Send SIGKILL, as a machine would."),
    ),
)
"""Of functions and methods that are no properties; `__init__` and overloads apart."""


@dataclass(frozen=True)
class Finding:
    """One place of a file that breaks a rule."""

    place: str
    found: str
    instead: str

    def __str__(self) -> str:
        return f"{self.place}: {self.found!r}: write instead: {self.instead}"


@dataclass
class Texts:
    """The words of one file, with the lines at which they begin."""

    prose: list[tuple[int, str]] = field(default_factory=list)
    docstrings: list[tuple[int, str]] = field(default_factory=list)
    functions: list[tuple[int, str]] = field(default_factory=list)


def docstrings(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """The texts that stand alone in the body of a module or class: its own, and those of its attributes."""
    for statement in body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield statement.lineno, text.strip()
            case _:
                pass


def is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator).endswith("property") for decorator in function.decorator_list)


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Neighbouring lines of comments are one text."""
    block: list[str] = []
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] != first + len(block):
                yield first, "\n".join(block)
                block = []
            first = first if block else token.start[0]
            block.append(token.string.removeprefix("#").strip())
    if block:
        yield first, "\n".join(block)


def of_python(text: str) -> Texts:
    tree = ast.parse(text)
    texts = Texts(prose=[*strings(tree), *comments(text)])
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            texts.docstrings += docstrings(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = list(docstrings(node.body[:1]))
            texts.docstrings += own
            if not is_property(node) and node.name != "__init__":
                texts.functions += own
    return texts


def matches(texts: list[tuple[int, str]], rules: tuple[Rule, ...]) -> Iterator[tuple[int, str, str]]:
    for line, text in texts:
        for rule in rules:
            for match in rule.found.finditer(text):
                yield line + text.count("\n", 0, match.start()), match.group(), rule.instead


def findings(name: str, text: str) -> list[Finding]:
    texts = of_python(text) if name.endswith(".py") else Texts(prose=[(1, text)])
    found = [
        *matches(texts.prose, PROSE),
        *matches(texts.docstrings, (ANY_FIRST,)),
        *matches(texts.functions, FUNCTION_FIRST),
    ]
    return [Finding(f"{name}:{line}", what, instead) for line, what, instead in sorted(set(found))]


def files() -> Iterator[Path]:
    yield from sorted((ROOT / "src").rglob("*.py"))
    yield from sorted((ROOT / "bench").rglob("*.py"))
    yield from sorted((ROOT / "examples").rglob("*.py"))
    yield from sorted(ROOT.glob("dev*.py"))
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield from sorted((ROOT / "bench").glob("*.md"))
    yield from sorted(ROOT.glob("*.md"))


NAMES = [str(path.relative_to(ROOT)) for path in files()]


def findings_of(name: str) -> list[Finding]:
    return findings(name, (ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_in_plain_english(name: str) -> None:
    found = findings_of(name)
    assert not found, "\n".join(["not in plain English:", *map(str, found)])


@pytest.mark.parametrize("rule", [*PROSE, ANY_FIRST, *FUNCTION_FIRST], ids=lambda rule: rule.wrong[0])
def test_a_rule_finds_what_is_wrong_and_lets_pass_what_is_right(rule: Rule) -> None:
    assert [text for text in rule.wrong if not rule.found.search(text)] == []
    assert [text for text in rule.right if rule.found.search(text)] == []


def test_a_finding_says_where_it_is_and_what_to_write_instead() -> None:
    text = '"""A module."""\n\n\ndef row() -> int:\n    """Give the row."""\n    return 1  # begins anew\n'
    assert [str(finding) for finding in findings("a.py", text)] == [
        "a.py:5: 'Give': write instead: Return, Yield, Record, Log, Let, Make: a verb that says what it does",
        "a.py:6: 'anew': write instead: again",
    ]


def test_every_kind_of_text_is_read() -> None:
    text = (
        '"""What a module is."""\n'
        "# it waits for\n# ever\n"
        "class A:\n"
        '    """Who it is."""\n\n'
        "    size = 1\n"
        '    """How large."""\n\n'
        "    @property\n"
        "    def large(self) -> bool:\n"
        '        """Whether it is large."""\n'
        '        raise ValueError(f"{self.size} is his")\n\n'
        "    def __init__(self) -> None:\n"
        '        """`size` is in bytes."""\n\n'
        "    async def run(self) -> bool:\n"
        '        """Whether it runs."""\n'
    )
    assert [finding.place.removeprefix("a.py:") + " " + finding.found for finding in findings("a.py", text)] == [
        "1 What",
        "2 for\never",
        "5 Who",
        "8 How",
        "13 his",
        "19 Whether",
    ]
    assert [finding.found for finding in findings("a.md", "A line.\nIt gives\nhim one.\n")] == ["gives", "him"]
