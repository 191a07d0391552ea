"""The address to listen on: read the same way for every server of a process."""

from __future__ import annotations

import pytest

from outlast import ConfigurationError
from outlast._serve.address import parse_address
from outlast._serve.endpoint import Endpoint


@pytest.mark.parametrize(
    ("address", "means"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),  # noqa: S104
        ("[::1]:0", ("::1", 0)),
        ("[::]:80", ("::", 80)),
    ],
)
def test_addresses(address: str, means: tuple[str, int]) -> None:
    assert parse_address(address) == means


@pytest.mark.parametrize(
    "address",
    [
        *["", "somewhere", "127.0.0.1", "127.0.0.1:", ":65536", ":-1", ":8o8o", ":\u0668", ":080000", "a" * 5000],
        *["::1:80", "[::1]", "[127.0.0.1]:80", "[]:80", "[localhost]:80", "[fe80::1%lo]:80", "[[::1]]:80"],
        *["example.org:80", "1.2.3:80", "http://127.0.0.1:80", "127.0.0.1:80/livez"],
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r'is no address to listen on; write "127\.0\.0\.1:8080"') as raised:
        Endpoint(address, {})
    assert len(str(raised.value)) < 700
