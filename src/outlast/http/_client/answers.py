"""The answers of a peer, and the errors for those that are none of what the caller can use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from outlast import Kind, OutlastError
from outlast.extend import clean, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBLEM_TYPE: Final = "application/problem+json"
PROBLEM_BYTES_MAX: Final = 65_536
"""No more of the body of an answer that is none of success is kept."""
CODE_CHARS_MAX: Final = 64
DETAIL_CHARS_MAX: Final = 200
SECONDS_MAX: Final = 1e9
"""Some thirty years; more is no time."""
KINDS: Final = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """An answer that has been read to its end.

    The names of `headers` are in lower case; one that came twice has its values joined by ", ". Neither headers nor body are
    in its `repr`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Show the status and the size."""
        return f"<Answer {self.status}, {len(self.body)} bytes>"

    @property
    def text(self) -> str:
        """The body as UTF-8; what is none is replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:  # noqa: ANN401 - whatever the peer has sent
        """Return the body as JSON. Raises `ValueError` when it is none."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Problem:
    """The members of an RFC 9457 answer that a server of Outlast adds: a fault as the server has it."""

    kind: Kind
    code: str
    detail: str = ""
    since_s: float | None = None
    """The seconds since which it has been so."""
    retry_after_s: float | None = None
    """The exact wait; the header Retry-After rounds it up to whole seconds."""

    @classmethod
    def of(cls, answer: Answer) -> Problem | None:
        """Return what the answer says, or None: it is no `application/problem+json`, or does not come from Outlast."""
        if answer.headers.get("content-type", "").partition(";")[0].strip().lower() != PROBLEM_TYPE:
            return None
        try:
            members = answer.json()
        except (ValueError, RecursionError):
            return None
        if not isinstance(members, dict):
            return None
        told = cast("dict[str, object]", members)
        kind, code, detail = told.get("kind"), told.get("code"), told.get("detail")
        if not isinstance(kind, str) or kind not in KINDS or not isinstance(code, str) or not code:
            return None
        return cls(
            KINDS[kind],
            clean(code, CODE_CHARS_MAX),
            clean(detail, DETAIL_CHARS_MAX) if isinstance(detail, str) else "",
            _seconds(told.get("since_s")),
            _seconds(told.get("retry_after_s")),
        )


class AnswerError(OutlastError):
    """The peer answered with a status that the call does not accept.

    `answer` is the answer, its body cut at 64 KiB; `problem` what a server of Outlast says in it, None if another one answered.
    `outlast.extend.attached(error)` is the fault: whom it concerns, and when it is worth coming back.
    """

    def __init__(self, asked: str, answer: Answer) -> None:
        super().__init__(f"{asked}: answered {said(answer.status)}")
        self.asked = asked
        """The name of the peer, the method and the path, without a query."""
        self.answer = answer
        self.problem = Problem.of(answer)

    def __reduce__(self) -> tuple[type[AnswerError], tuple[str, Answer]]:
        """Travel to another process."""
        return type(self), (self.asked, self.answer)

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.answer.status


class AnswerTooLargeError(OutlastError):
    """The body of an answer is larger than the peer was allowed: the rest was not read. The call may have had its effect."""

    def __init__(self, asked: str, status: int, bytes_max: int) -> None:
        super().__init__(
            f"{asked}: the body of the answer {status} is larger than {size_text(bytes_max)}: read it with stream(), "
            "ask for less, or raise body_bytes_max"
        )
        self.asked = asked
        self.status = status
        self.bytes_max = bytes_max

    def __reduce__(self) -> tuple[type[AnswerTooLargeError], tuple[str, int, int]]:
        """Travel to another process."""
        return type(self), (self.asked, self.status, self.bytes_max)


def said(status: int) -> str:
    """Return a status with its name, if it has one."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= SECONDS_MAX else None
