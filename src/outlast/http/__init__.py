"""HTTP: the shell of every server, and the client's side as a dependency.

The names are loaded when they are first used: a server needs no client, and a client no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._lazily import lazily

if TYPE_CHECKING:
    from outlast.http._app.admitting import AdmissionMiddleware as AdmissionMiddleware
    from outlast.http._app.answering import ProblemMiddleware as ProblemMiddleware
    from outlast.http._app.asking import Ask as Ask
    from outlast.http._app.asking import ask as ask
    from outlast.http._app.event_stream import EventStream as EventStream
    from outlast.http._app.events import Event as Event
    from outlast.http._app.events import EventFeed as EventFeed
    from outlast.http._app.long_poll import Polled as Polled
    from outlast.http._app.long_poll import PollEnd as PollEnd
    from outlast.http._app.long_poll import long_poll as long_poll
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
    from outlast.http._server.limits import Limits as Limits
    from outlast.http._server.server import Server as Server
    from outlast.http._server.tls import Tls as Tls

_HOMES = {
    "AdmissionMiddleware": "_app.admitting",
    "Answer": "_client.answers",
    "AnswerError": "_client.answers",
    "AnswerStream": "_client.calls",
    "AnswerTooLargeError": "_client.answers",
    "Ask": "_app.asking",
    "Event": "_app.events",
    "EventFeed": "_app.events",
    "EventStream": "_app.event_stream",
    "HttpPeer": "_client.peer",
    "Limits": "_server.limits",
    "PollEnd": "_app.long_poll",
    "Polled": "_app.long_poll",
    "Problem": "_app.problem",
    "ProblemMiddleware": "_app.answering",
    "Server": "_server.server",
    "Tls": "_server.tls",
    "Token": "_app.tokens",
    "TokenMiddleware": "_app.tokens",
    "Tokens": "_app.tokens",
    "ask": "_app.asking",
    "http_problem": "_app.problem",
    "http_rule": "_client.classify",
    "long_poll": "_app.long_poll",
    "problem_of": "_app.problem",
}

__all__ = [
    "AdmissionMiddleware",
    "Answer",
    "AnswerError",
    "AnswerStream",
    "AnswerTooLargeError",
    "Ask",
    "Event",
    "EventFeed",
    "EventStream",
    "HttpPeer",
    "Limits",
    "PollEnd",
    "Polled",
    "Problem",
    "ProblemMiddleware",
    "Server",
    "Tls",
    "Token",
    "TokenMiddleware",
    "Tokens",
    "ask",
    "http_problem",
    "http_rule",
    "long_poll",
    "problem_of",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
