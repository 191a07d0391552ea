"""What a request asks of admission, by default."""

from __future__ import annotations

import pytest

from outlast.admission import Criticality
from outlast.http import Ask, Token, ask

TOKEN = Token("reports", frozenset({"read"}), "tenant-7")


def asked(method: str = "GET", path: str = "/orders", token: Token | None = None, **headers: str) -> Ask:
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return ask(method, path, pairs, "192.0.2.1", token)


def test_the_key_is_the_token_s_name_or_the_address() -> None:
    assert asked().key == "192.0.2.1"
    assert (asked(token=TOKEN).key, asked(token=TOKEN).tenant) == ("reports", "tenant-7")


@pytest.mark.parametrize(
    ("method", "path", "header", "criticality"),
    [
        ("GET", "/orders", "", Criticality.NORMAL),
        ("POST", "/orders", "", Criticality.NORMAL),
        ("DELETE", "/orders/1", "", Criticality.CRITICAL),
        ("HEAD", "/orders", "", Criticality.NORMAL),
        ("GET", "/readyz", "", Criticality.CRITICAL),
        ("GET", "/readyz/x", "", Criticality.NORMAL),
        ("GET", "/orders", "sheddable", Criticality.SHEDDABLE),
        ("DELETE", "/orders", "Sheddable ", Criticality.SHEDDABLE),
        ("GET", "/orders", "critical", Criticality.NORMAL),
        ("GET", "/orders", "0", Criticality.NORMAL),
    ],
)
def test_a_client_lowers_itself_and_never_raises_itself(method: str, path: str, header: str, criticality: Criticality) -> None:
    assert asked(method, path, x_criticality=header).criticality is criticality


@pytest.mark.parametrize(
    ("header", "deadline_s"),
    [("2", 2.0), ("0.25", 0.25), ("0", 0.0), ("99999", 3600.0)]
    + [(bad, None) for bad in ("", "-1", "nan", "inf", "1e3", "1_0", "soon", "1.", ".5", "1234567890", "²", "9" * 400)],
)
def test_the_deadline_is_in_remaining_seconds_and_capped(header: str, deadline_s: float | None) -> None:
    assert asked(x_request_timeout=header).deadline_s == deadline_s


@pytest.mark.parametrize(("header", "size"), [("0", 0), ("1000", 1000), ("-5", 0), ("1e3", 0), ("", 0), ("9" * 400, 0)])
def test_the_size_is_the_content_length(header: str, size: int) -> None:
    assert asked("POST", content_length=header).size_bytes == size


def test_the_size_of_a_body_without_a_length_is_unknown() -> None:
    assert asked("POST", transfer_encoding="chunked").size_bytes is None
