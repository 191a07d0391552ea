"""Secrets do not get out, and a message stays short."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.redact import READ_MAX, clean, cut, redact

SECRET = "hunter2-S3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://app:{SECRET}@db.example/shop",
        f"postgresql://app:p@{SECRET}@db.example:5432/shop?sslmode=require",
        f"could not connect to redis://:{SECRET}@cache:6379/0, will try again",
        f"amqps://user:%40{SECRET}%3A@mq/",
        f"host=db user=app password={SECRET} dbname=shop",
        f"host=db password='{SECRET} with space' dbname=shop",
        f"host=db password = 'it''s {SECRET}' dbname=shop",
        f"password='a\\'{SECRET}' x",
        f'{{"user": "app", "password": "{SECRET}"}}',
        f"{{'api_key': '{SECRET}'}}",
        f"PGPASSWORD={SECRET} psql",
        f"Authorization: Bearer {SECRET}",
        f"authorization=Basic {SECRET}",
        f"got header Bearer {SECRET}",
        f"https://host/path?token={SECRET}&x=1",
        f"client_secret: {SECRET}",
        f"access-key={SECRET}",
        f"Passwd={SECRET}",
    ],
)
def test_a_secret_does_not_survive(text: str) -> None:
    assert SECRET not in redact(text)
    assert "***" in redact(text)
    assert redact(redact(text)) == redact(text)
    assert SECRET not in clean(text)


@pytest.mark.parametrize(
    "text",
    [
        "connection refused",
        'FATAL: database "shop" does not exist',
        "https://example.org/a/b?page=2",
        "postgresql://app@db/shop",
        "at 12:30:01 port 5432 @home",
        "passing the time: well",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert redact(text) == text


@given(st.text(string.ascii_letters + string.digits + "!$%^*_-+.@:", min_size=6, max_size=60))
def test_no_password_of_a_url_survives(password: str) -> None:
    text = redact(f"failed: postgresql://app:{password}@db.example/shop (timeout)")
    assert text == "failed: postgresql://app:***@db.example/shop (timeout)"


@given(st.text(max_size=400), st.integers(1, 100))
def test_a_cut_text_says_what_is_missing(text: str, chars_max: int) -> None:
    short = cut(text, chars_max)
    assert short == text if len(text) <= chars_max else short.endswith(f"(+{len(text) - chars_max} characters)")


@given(st.text(max_size=2_000))
def test_a_clean_text_is_one_short_line(text: str) -> None:
    line = clean(text)
    assert len(line.splitlines()) <= 1
    assert len(line) <= 300 + 40


def test_a_secret_at_the_cut_is_gone_too() -> None:
    text = "x" * 280 + f" password={SECRET}"
    assert SECRET[:6] not in clean(text)


@pytest.mark.parametrize("unit", ["a", "password=", "x://y:", "'", "Bearer ", "\\", "@"])
def test_a_huge_text_is_read_only_in_part(unit: str) -> None:
    """Bounded patterns over a bounded text: this test would not end otherwise."""
    text = unit * (1_000_000 // len(unit))
    assert len(redact(text)) <= READ_MAX * 2
    assert len(clean(text)) <= 300 + 40
