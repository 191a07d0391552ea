"""Masks in a text what counts, dates or numbers an instance, and leaves what names a thing or is a code."""

from __future__ import annotations

import re
from typing import Final

TEXT_CHARS_MAX: Final = 2_000
"""Texts are compared, and kept, up to this length."""
CODE_WORDS: Final = frozenset(
    {
        "errno",
        "err",
        "error",
        "code",
        "status",
        "exit",
        "exited",
        "port",
        "signal",
        "sig",
        "sqlstate",
        "rc",
        "returncode",
        "returned",
        "http",
    }
)
CODE_WORD: Final = rf"(?:{'|'.join(sorted(CODE_WORDS, key=len, reverse=True))})"
CODE_BEFORE: Final = re.compile(rf"(?<![a-z]){CODE_WORD}(?:\s+with|/[\d.]+)?[\s:=\[(#'\"]{{0,3}}$", re.IGNORECASE)
MASKED: Final = re.compile(
    rf"""
      (?P<keep>(?<![a-z]){CODE_WORD}[\s:=\[(\#'"]{{1,3}}-?\d{{1,5}}\b
        | \b\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d{{1,4}}\b)?)
    | \b[0-9a-f]{{8}}-(?:[0-9a-f]{{4}}-){{3}}[0-9a-f]{{12}}\b
    | \b\d{{4}}-\d\d-\d\d(?:[T\s]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?
    | \b\d\d:\d\d:\d\d(?:[.,]\d+)?
    | \b0x[0-9a-f]+
    | \b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{{8,}}\b
    | (?<![\w/.-])[-+]?\d+(?:[.,]\d+)*(?:[nmuµ]?s|min|h|%|[kmg]?i?b)?(?![\w/-])
    | \d{{5,}}
    """,
    re.IGNORECASE | re.VERBOSE,
)
PUNCTUATION: Final = "[](){}<>'\"#=:;,.!?"
CODE_CHARS_MAX: Final = 5
"""A longer number is no code."""
WORD_CHARS_MAX: Final = 80
WORDS_CACHED_MAX: Final = 4_096
_words: dict[str, str] = {}
"""What words with digits look like masked: most words of a log come again."""


def masked(text: str) -> str:
    """`text` without what merely counts, dates or numbers an instance; codes, names and addresses of hosts stay."""
    words = text[:TEXT_CHARS_MAX].split(" ")
    for at, word in enumerate(words):
        if word.isalpha():
            continue
        bare = word.strip(PUNCTUATION)
        known = word.replace(bare, "#", 1) if bare.isdigit() else (_words.get(word) or _mask_word(word))
        if known != word and not (at and _is_code(words, at)):
            words[at] = known
    return " ".join(words)


def _mask_word(word: str) -> str:
    known = MASKED.sub(_mask, word)
    if len(word) <= WORD_CHARS_MAX:
        if len(_words) >= WORDS_CACHED_MAX:
            _words.clear()
        _words[word] = known
    return known


def _mask(match: re.Match[str]) -> str:
    return match.group() if match.lastgroup == "keep" else "#"


def _is_code(words: list[str], at: int) -> bool:
    """Whether the word before says that a short number is a code: "status 503", "[Errno 111]", "exited with 1"."""
    if len(words[at].strip(PUNCTUATION)) > CODE_CHARS_MAX:
        return False
    before = words[at - 1].strip(PUNCTUATION).lower()
    if before == "with" and at > 1:
        before = words[at - 2].lower()
    return before in CODE_WORDS or before.startswith("http/") or (before[-6:] in {"_errno", "status"} or before[-4:] == "code")


def said(value: object) -> str:
    """`str(value)`, bounded; its type where it cannot say anything."""
    try:
        return str(value)[:TEXT_CHARS_MAX]
    except Exception:  # noqa: BLE001  # whatever a foreign __str__ raises
        return type(value).__qualname__
