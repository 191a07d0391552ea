"""The DSN: it never shows a secret, and means what libpq means by it."""

from __future__ import annotations

import psycopg.conninfo
import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlast
from outlast.postgres import redact_dsn
from outlast.postgres._dsn import Address, Dsn

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "host=db password=hunter2 hunter2",
        "host=db password='hunter2",
        "password = hunter2 host",
        "postgresql://app:hunter2%zz@db/shop",
        "postgresql://app:hunter2@db/shop?nonsense=1",
        "postgresql://app@db/shop?password=hunter2&nonsense=1",
        "postgres://app:hunter2@a,b:1/shop?sslpassword=hunter2",
        "service=shop password=hunter2",
        "host=db sslkey=hunter2",
    ],
)
def test_no_piece_of_a_secret_is_shown_even_of_a_text_that_cannot_be_read(text: str) -> None:
    seen = [redact_dsn(text)]
    try:
        dsn = Dsn.parse(text)
    except outlast.ConfigurationError as error:
        seen += [str(error), repr(error), repr(error.__cause__)]
    else:
        seen += [str(dsn), repr(dsn)]
    assert not any(SECRET in text for text in seen), seen


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_redacting_never_raises_and_hides_every_password(rest: str) -> None:
    redact_dsn(rest)
    assert SECRET not in redact_dsn(f"password={SECRET} {rest}")
    assert SECRET not in redact_dsn(psycopg.conninfo.make_conninfo(host=rest, password=SECRET))


def test_what_is_left_open_comes_from_the_environment_as_with_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGHOST": "db.internal", "PGPORT": "6432", "PGUSER": "svc", "PGOPTIONS": "-c a.b=c"}.items():
        monkeypatch.setenv(name, value)
    dsn = Dsn.parse("dbname=shop")
    assert dsn.addresses == (Address("db.internal", 6432),)
    assert (dsn.user, dsn.database, dsn.get("options")) == ("svc", "shop", "-c a.b=c")
    assert Dsn.parse("postgresql://app@other:1/x").addresses == (Address("other", 1),)


def test_several_hosts_keep_their_order_and_ports() -> None:
    dsn = Dsn.parse("host=a,/run/pg,::1 port=1,,3")
    assert dsn.addresses == (Address("a", 1), Address("/run/pg", 5432), Address("::1", 3))
    assert [address.is_socket for address in dsn.addresses] == [False, True, False]


def test_a_numeric_address_keeps_the_name_its_certificate_must_say() -> None:
    (address,) = Dsn.parse("host=db.example hostaddr=10.0.0.1").addresses
    assert (address.host, address.name) == ("10.0.0.1", "db.example")


def test_options_of_ours_never_replace_those_of_the_user() -> None:
    dsn = Dsn.parse("host=a connect_timeout=7")
    assert Dsn.parse(dsn.with_options(connect_timeout=2, application_name="x")).get("connect_timeout") == "7"
