"""HTTP: the shell of every server, and the client's side as a dependency.

The names are loaded when they are first used: a server needs no client, and a client no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast.http._app.answering import ProblemMiddleware as ProblemMiddleware
    from outlast.http._app.asking import Ask as Ask
    from outlast.http._app.asking import ask as ask
    from outlast.http._app.problem import Problem as Problem
    from outlast.http._app.problem import http_problem as http_problem
    from outlast.http._app.problem import problem_of as problem_of
    from outlast.http._app.tokens import Token as Token
    from outlast.http._app.tokens import TokenMiddleware as TokenMiddleware
    from outlast.http._app.tokens import Tokens as Tokens
    from outlast.http._client.answers import Answer as Answer
    from outlast.http._client.answers import AnswerError as AnswerError
    from outlast.http._client.answers import AnswerTooLargeError as AnswerTooLargeError
    from outlast.http._client.calls import AnswerStream as AnswerStream
    from outlast.http._client.classify import http_rule as http_rule
    from outlast.http._client.peer import HttpPeer as HttpPeer

_HOMES = {
    "Answer": "_client.answers",
    "AnswerError": "_client.answers",
    "AnswerStream": "_client.calls",
    "AnswerTooLargeError": "_client.answers",
    "Ask": "_app.asking",
    "HttpPeer": "_client.peer",
    "Problem": "_app.problem",
    "ProblemMiddleware": "_app.answering",
    "Token": "_app.tokens",
    "TokenMiddleware": "_app.tokens",
    "Tokens": "_app.tokens",
    "ask": "_app.asking",
    "http_problem": "_app.problem",
    "http_rule": "_client.classify",
    "problem_of": "_app.problem",
}

__all__ = [
    "Answer",
    "AnswerError",
    "AnswerStream",
    "AnswerTooLargeError",
    "Ask",
    "HttpPeer",
    "Problem",
    "ProblemMiddleware",
    "Token",
    "TokenMiddleware",
    "Tokens",
    "ask",
    "http_problem",
    "http_rule",
    "problem_of",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
