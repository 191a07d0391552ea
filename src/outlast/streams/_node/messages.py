"""The records of a body: its bytes, or the messages of its JSON, each as it was sent."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from outlast.streams._model import RECORDS_MAX
from outlast.streams._node import protocol
from outlast.streams._node.answers import RefusalError, bad_request, refusal

if TYPE_CHECKING:
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request

JSON_BYTES_MAX: Final = 4 << 20
"""The most JSON of one request. It is looked through in one step, during which nobody else is served: some 50 ms."""
_BLANKS: Final = re.compile(r"[ \t\n\r]+")


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is no JSON"
    raise ValueError(msg)


def _nothing(pairs: list[tuple[str, Any]]) -> None:
    _ = pairs


# Numbers are not converted: their digits are kept as they are, and `int` refuses more than 4,300 of them.
_scan: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=_nothing).raw_decode


def wants_close(request: Request) -> bool:
    """Return whether the request closes the stream: any value but `true` counts as none."""
    value = request.headers.get(protocol.CLOSED)
    return value is not None and value.lower() == protocol.TRUE


def body_bytes_max(node: Node, *, is_json: bool) -> int:
    """Return the largest body that an append, or a new stream, may have."""
    return min(node.body_bytes_max, JSON_BYTES_MAX) if is_json else node.body_bytes_max


def records_of(body: bytes, *, is_json: bool) -> list[bytes]:
    """Return the records that a body is: itself, or the messages of its JSON. Raises `RefusalError`."""
    return messages(body) if is_json else [body]


def messages(body: bytes) -> list[bytes]:
    """Return the messages of a JSON text, byte for byte as they were sent: the members of an array, or the one value.

    Blanks around a message are not part of it. Raises `RefusalError`: it is no JSON (RFC 8259), or has too many messages.
    """
    try:
        text = body.decode()
        slices = _slices(text)
    except RecursionError:
        raise bad_request("json", "the body is nested too deeply") from None
    except ValueError as error:
        raise bad_request("json", f"the body is no JSON: {_reason(error)}") from None
    if len(text) == len(body):
        return [body[first:end] for first, end in slices]
    return [text[first:end].encode() for first, end in slices]


def _reason(error: ValueError) -> str:
    """Return why it is none, without a word of what it has in it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return "it is no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _slices(text: str) -> list[tuple[int, int]]:
    """Return where each message begins and ends. Raises `ValueError` and `RecursionError`."""
    at = _behind_blanks(text, 0)
    if not text.startswith("[", at):
        end = _scan(text, at)[1]
        _check_end(text, end)
        return [(at, end)]
    at = _behind_blanks(text, at + 1)
    found: list[tuple[int, int]] = []
    if not text.startswith("]", at):
        while True:
            end = _scan(text, at)[1]
            found.append((at, end))
            if len(found) > RECORDS_MAX:
                raise RefusalError(refusal(413, "too large", f"an append has at most {RECORDS_MAX} messages: divide it"))
            at = _behind_blanks(text, end)
            if not text.startswith(",", at):
                break
            at = _behind_blanks(text, at + 1)
    if not text.startswith("]", at):
        raise json.JSONDecodeError("expecting , or ] in an array", text, at)
    _check_end(text, at + 1)
    return found


def _check_end(text: str, at: int) -> None:
    if (end := _behind_blanks(text, at)) < len(text):
        raise json.JSONDecodeError("extra data", text, end)


def _behind_blanks(text: str, at: int) -> int:
    # There may be millions, and this is called between any two messages.
    found = _BLANKS.match(text, at) if at < len(text) and text[at] in " \t\n\r" else None
    return at if found is None else found.end()
