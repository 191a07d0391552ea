"""Text for logs and errors: one line, cut to a bound, and without secrets."""

from __future__ import annotations

import re
from typing import Final

CHARS_MAX: Final = 300
READ_MAX: Final = 65_536
"""No more of a text than this is looked at: a message may carry a whole payload."""
MASK: Final = "***"

_URL: Final = re.compile(r"(?P<head>\b[a-zA-Z][a-zA-Z0-9+.-]{1,30}://[^\s/:@]{0,256}:)(?P<secret>[^\s/]{1,512})@")
"""The password of a URL: from the colon after the user to the *last* @ before the path, since a
password that was not percent-encoded may hold an @ itself."""
_WORDS: Final = (
    r"pass(?:word|wd|phrase|file)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|"
    r"credentials?|authorization|sslpassword"
)
_PAIR: Final = re.compile(
    rf"""(?P<head>(?<![a-zA-Z0-9])[a-zA-Z0-9_-]{{0,32}}?(?:{_WORDS})["']?\s{{0,4}}[=:]\s{{0,4}})"""
    r"""(?P<secret>(?:(?:Bearer|Basic|Digest)\s{1,4})?(?:'(?:[^'\\]|\\.|''){0,512}'|"(?:[^"\\]|\\.){0,512}"|[^\s,;&}'")\]]{1,512}))""",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"(?P<head>\b(?:Bearer|Basic)\s{1,4})(?P<secret>[A-Za-z0-9._~+/=-]{8,2048})", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def redact(text: str) -> str:
    """Replace what looks like a secret by `***`: passwords in URLs and DSNs, tokens, keys, authorization.

    Only the first 64 KiB are read and given back; every pattern is bounded, so the time is linear.
    It knows secrets by the word before them. A secret that stands alone is not recognised.
    """
    text = text[:READ_MAX]
    text = _URL.sub(rf"\g<head>{MASK}@", text)
    text = _PAIR.sub(rf"\g<head>{MASK}", text)
    return _BEARER.sub(rf"\g<head>{MASK}", text)


def cut(text: str, chars_max: int = CHARS_MAX) -> str:
    """Return at most `chars_max` characters of `text`, with how many are missing."""
    if len(text) <= chars_max:
        return text
    return f"{text[:chars_max]}... (+{len(text) - chars_max} characters)"


def clean(text: str, chars_max: int = CHARS_MAX) -> str:
    """Make `text` fit for a log line: redacted first, then on one line, then cut.

    Redacted before it is cut: half a password is a secret too.
    """
    length = len(text)
    line = _CONTROL.sub(" ", redact(text)).strip()
    if length > READ_MAX:
        return f"{line[:chars_max]}... (+{length - chars_max} characters)"
    return cut(line, chars_max)
