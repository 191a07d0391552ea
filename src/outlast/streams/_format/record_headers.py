"""Headers of one record: a JSON object of texts, or nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return headers as they are stored. Raises `ValueError` for what is no text, or no text of Unicode."""
    if not headers:
        return b""
    for name, value in headers.items():
        if type(name) is not str or type(value) is not str:
            msg = f"headers are texts by name; {name!r} has {type(value).__name__}"
            raise ValueError(msg)
    return _encode(dict(headers)).encode()


def decode_headers(data: bytes) -> dict[str, str]:
    """Return headers from what `encode_headers` returned."""
    return json.loads(data) if data else {}
