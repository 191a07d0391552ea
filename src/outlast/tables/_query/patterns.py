"""Patterns of tag values: wildcards, and that part of regular expressions which is matched in a bounded time.

Python's own `re` takes a time that grows exponentially with some patterns, and nothing stops it. Here a pattern becomes a list of
steps, and all places in it that the text may have reached are followed at once: at most steps times characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from outlast.tables._errors import InvalidQueryError

if TYPE_CHECKING:
    from collections.abc import Callable

CHARS_MAX: Final = 200
"""Characters of a pattern."""
CHOICES_MAX: Final = 50
"""Sequences that its alternatives make together."""
OFFERED: Final = "there are characters, ., [a-z], \\d \\w \\s, | and (a|b), *, + and ? behind one character, ^ and $ at the ends"
_CLASSES: Final[dict[str, Callable[[str], bool]]] = {
    "d": str.isdecimal,
    "D": lambda char: not char.isdecimal(),
    "w": lambda char: char.isalnum() or char == "_",
    "W": lambda char: not (char.isalnum() or char == "_"),
    "s": str.isspace,
    "S": lambda char: not char.isspace(),
}


class Step(NamedTuple):
    """One character that a text has to have next."""

    takes: Callable[[str], bool]
    may_lack: bool = False
    may_repeat: bool = False


def _any(char: str) -> bool:  # noqa: ARG001 - one of those that are asked
    return True


def _same(wanted: str) -> Callable[[str], bool]:
    return lambda char: char == wanted


ANY: Final = Step(_any, may_lack=True, may_repeat=True)


class Pattern:
    """Sequences of steps of which a text has to follow one, to its end."""

    def __init__(self, sequences: list[list[Step]]) -> None:
        self._sequences: Final = sequences

    def matches(self, text: str) -> bool:
        """Return whether the text follows one of them."""
        return any(_follows(steps, text) for steps in self._sequences)


def wildcard(text: str, *, any_case: bool = False) -> Pattern:
    """Return the pattern of a text in which `*` stands for any characters. Raises `InvalidQueryError`."""
    _check_length(text)
    if "*" not in text:
        raise InvalidQueryError(f"Filter must contain an asterisk, {text!r} has none; take literal_or")
    same = _same_in_any_case if any_case else _same
    return Pattern([[ANY if char == "*" else Step(same(char)) for char in text]])


def regexp(text: str) -> Pattern:
    """Return the pattern of an expression that a part of a text has to fit. Raises `InvalidQueryError` for one not offered."""
    _check_length(text)
    reader = _Reader(text)
    sequences = reader.choices(is_outer=True)
    if not reader.is_at_end:
        raise reader.refusal("has a ) without a (")
    return Pattern(sequences)


def _same_in_any_case(wanted: str) -> Callable[[str], bool]:
    return lambda char: char.lower() == wanted.lower()


def _check_length(text: str) -> None:
    if not 0 < len(text) <= CHARS_MAX:
        raise InvalidQueryError(f"a filter has 1 to {CHARS_MAX} characters, not {len(text)}")


def _follows(steps: list[Step], text: str) -> bool:
    end = len(steps)
    places = _with_skips(steps, {0})
    for char in text:
        reached = {
            place if steps[place].may_repeat else place + 1 for place in places if place < end and steps[place].takes(char)
        }
        if not reached:
            return False
        places = _with_skips(steps, reached)
    return end in places


def _with_skips(steps: list[Step], places: set[int]) -> set[int]:
    """Return the places, and those that are reached from them without a character."""
    found = set(places)
    for place in places:
        following = place
        while following < len(steps) and steps[following].may_lack:
            following += 1
            found.add(following)
    return found


class _Reader:
    """Reads a regular expression from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._text)

    def refusal(self, what: str) -> InvalidQueryError:
        return InvalidQueryError(f"the expression {self._text!r} {what}; {OFFERED}")

    def choices(self, *, is_outer: bool) -> list[list[Step]]:
        """Return the sequences of alternatives, up to the end or the bracket that closes them."""
        found: list[list[Step]] = []
        while True:
            found += self._sequences(is_outer=is_outer)
            self._check(found)
            if self._next() != "|":
                return found
            self._at += 1

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _check(self, sequences: list[list[Step]]) -> None:
        if len(sequences) > CHOICES_MAX:
            raise self.refusal(f"has more than {CHOICES_MAX} alternatives")

    def _sequences(self, *, is_outer: bool) -> list[list[Step]]:
        """Return what one alternative may be: several, where it has brackets with alternatives in them."""
        begins, ends = is_outer and self._skip("^"), False
        sequences: list[list[Step]] = [[]]
        while self._next() not in {"", "|", ")"}:
            if is_outer and self._next() == "$" and self._text[self._at + 1 : self._at + 2] in {"", "|"}:
                self._at, ends = self._at + 1, True
                break
            parts = self._parts()
            sequences = [[*sequence, *part] for sequence in sequences for part in parts]
            self._check(sequences)
        if not is_outer:
            return sequences
        return [[*(() if begins else (ANY,)), *sequence, *(() if ends else (ANY,))] for sequence in sequences]

    def _skip(self, char: str) -> bool:
        if self._next() != char:
            return False
        self._at += 1
        return True

    def _parts(self) -> list[list[Step]]:
        """Return the alternatives of the next character or bracket, with what is behind it."""
        if self._skip("("):
            if self._next() == "?" and self._text[self._at : self._at + 2] != "?:":
                raise self.refusal("looks around")
            self._at += 2 if self._next() == "?" else 0
            parts = self.choices(is_outer=False)
            if not self._skip(")"):
                raise self.refusal("has a ( without a )")
            if self._next() in {"*", "+", "?", "{"} and self._next():
                raise self.refusal(f"has a {self._next()} behind a bracket")
            return parts
        takes = self._character()
        sign = self._next()
        if sign in {"*", "+", "?"} and sign:
            self._at += 1
            if self._next() in {"*", "+", "?", "{"} and self._next():
                raise self.refusal(f"has a {self._next()} behind a {sign}")
        return [
            {
                "*": [Step(takes, may_lack=True, may_repeat=True)],
                "+": [Step(takes), Step(takes, may_lack=True, may_repeat=True)],
                "?": [Step(takes, may_lack=True)],
            }.get(sign, [Step(takes)])
        ]

    def _character(self) -> Callable[[str], bool]:
        char = self._next()
        self._at += 1
        if char == ".":
            return _any
        if char == "\\":
            return self._escaped()
        if char == "[":
            return self._one_of()
        if char in "*+?{^$":
            raise self.refusal(f"has a {char} where a character is wanted (write \\{char} for the character)")
        return _same(char)

    def _escaped(self) -> Callable[[str], bool]:
        char = self._next()
        self._at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        if not char or char.isalnum():
            raise self.refusal(f"has a \\{char}")
        return _same(char)

    def _one_of(self) -> Callable[[str], bool]:
        """Return what takes one of the characters in square brackets."""
        is_negated = self._skip("^")
        takes: list[Callable[[str], bool]] = []
        while (char := self._next()) != "]" or not takes:
            self._at += 1
            if not char:
                raise self.refusal("has a [ without a ]")
            last = self._text[self._at + 1 : self._at + 2]
            if char == "\\":
                takes.append(self._escaped())
            elif self._next() == "-" and last not in {"", "]", "\\"}:
                if last < char:
                    raise self.refusal(f"has a range {char}-{last} that is none")
                self._at += 2
                takes.append(_between(char, last))
            else:
                takes.append(_same(char))
        self._at += 1
        if is_negated:
            return lambda char: not any(each(char) for each in takes)
        return lambda char: any(each(char) for each in takes)


def _between(first: str, last: str) -> Callable[[str], bool]:
    return lambda char: first <= char <= last
