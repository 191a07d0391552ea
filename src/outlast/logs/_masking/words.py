"""The words that say what the number, or the quoted text, beside them means."""

from __future__ import annotations

from typing import Final

CODE_WORDS: Final = (
    "code", "errno", "status", "exit", "signal", "sqlstate", "hresult", "winerror", "wsaerror", "os error",
    "http", "https", "smtp", "exited", "retval", "event_id", "eventid", "event id", "sig",
)  # fmt: skip
"""A number behind one of these tells one fault from another: it stays. They may end a longer word: `errorCode`, `http_status`."""

WEAK_CODE_WORDS: Final = (
    "returned", "responded", "response", "reply", "result", "got", "line", "reason", "rc", "ret", "err",
)  # fmt: skip
"""The same, but where a noun follows they count it: `returned -1` and `got 503 from` stay, `got 12 rows` does not."""

FILLERS: Final = "is|was|of|with|by|code|status|number|no|value|response"
"""Words that may stand between such a word and its number, as in "exited with code 137"."""

LEVELS: Final = "ERROR|Error|error|FATAL|PANIC|WARNING|WARN|ORA|Errno"
"""Words before a code that are before much else too: the number stays if punctuation follows, as in `ERROR 1045 (28000)`."""

REASONS: Final = (
    "Bad Gateway|Bad Request|Conflict|Forbidden|Found|Gateway|Gone|Internal|Method Not|Moved|Not |OK\\b|Payload|Precondition|"
    "Request|Service|Temporary|Too Many|Unauthori[sz]ed|Unavailable|Unprocessable"
)
"""The beginnings of the reason behind an HTTP status."""

IDENTIFIED: Final = (
    "request|req|trace|span|correlation|session|transaction|txn|tx|user|customer|account|order|message|msg|job|task|batch|run|"
    "thread|process|connection|conn|client|parent|root|item|object|document|doc|record|row|uu|gu"
)
"""The things that a field `..._id` may name. Its value is one of many: it is masked whatever it looks like."""

VALUE_WORDS: Final = (
    "values?|literal|input|user|username|user name|login|e-?mail|customer|account|token|cookie|session|search|text|string|"
    "payload|param|parameter|argument|password|nonce|cursor|title|subject|comment|phone|base 0{1,3}|to float|type [a-z ]{1,40}"
)
"""Words before a quoted text that is somebody's data. Behind any other word a quoted text may be a name, and stays."""

COUNTED: Final = (
    "pid|tid|id|uid|gid|attempts?|try|tries|retry|retries|count|total|n|num|size|len|length|offset|took|elapsed|duration|"
    "latency|time|ts|ms|us|ns|bytes|seq|index|idx|age|pos|rows?|col|lag|depth|port"
)
"""Words that are no host before `:5432`."""

POOLED: Final = "thread|pool|exec|executor|fiber|goroutine|conn|connection|request|req|attempt|retry|txn|span"
"""Threads and the like are numbered by the program, `pool-3-thread-7`, where hosts and tables are named by people."""

CLIENT_PORTS: Final = "client|source|src|remote|peer"
"""Before `_port`: the number that a system gave to one connection. Other ports name a service, and stay."""

METHODS: Final = "GET|POST|PUT|DELETE|PATCH|HEAD|OPTIONS"
MONTHS: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
DAYS: Final = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
DURATIONS: Final = (
    "nanos(?:econds?)?|micros(?:econds?)?|millis(?:econds?)?|msecs?|secs?|seconds?|mins?|minutes?|hours?|hrs?|days?|"
    "ns|us|\xc2\xb5s|\xce\xbcs|ms|s|m|h|d"
)
"""Units of time; the two ways to write a micro sign are spelled as their bytes in UTF-8."""
SIZES: Final = "[KkMGTP]i?B(?:/s)?|B|bytes?|%"
