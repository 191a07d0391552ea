"""HTTP: the shell of every server, and the client's side as a dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast.http._client.answers import Answer, AnswerError, AnswerTooLargeError
    from outlast.http._client.calls import AnswerStream
    from outlast.http._client.classify import http_rule
    from outlast.http._client.peer import HttpPeer

__all__ = ["Answer", "AnswerError", "AnswerStream", "AnswerTooLargeError", "HttpPeer", "http_rule"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Answer": "_client.answers",
        "AnswerError": "_client.answers",
        "AnswerStream": "_client.calls",
        "AnswerTooLargeError": "_client.answers",
        "HttpPeer": "_client.peer",
        "http_rule": "_client.classify",
    },
)
