"""What is masked in a line, and what never is."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.logs._masking import shape
from outlast.logs._masking.shape import canonical
from outlast.logs.text._keys import MASKED_BYTES_MAX

SAME = [
    ("2026-01-31T12:00:00.123Z x", "2026-02-01T00:59:59.000Z x"),
    ("2026-01-31 12:00:00,123 x", "2026-01-31 12:00:01,999 x"),
    ("10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] x", "10.0.0.2 - - [11/Nov/2001:01:00:00 +0000] x"),
    ("Oct 11 22:14:15 web x", "Nov  1 02:04:05 web x"),
    ("Mon, 02 Jan 2006 15:04:05 GMT x", "Tue, 03 Feb 2009 01:02:03 GMT x"),
    ("E0131 12:00:00.123456   12345 x", "E0201 01:00:00.000001   54321 x"),
    ("took 12ms", "took 1.5s"),
    ("took 1m3.5s", "took 250µs"),
    ("took 12 ms of it", "took 1.3 s of it"),
    ("sent 12.5MB", "sent 3kB"),
    ("at 95% now", "at 7% now"),
    ("x=-5 y", "x=12.25 y"),
    ("n 1,000,000 y", "n 5 y"),
    ("request 3f2504e0-4f89-11d3-9a0c-0305e82c3301 x", "request aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee x"),
    ("trace 0af7651916cd43dd8448eb211c80319c", "trace deadbeefdeadbeefdeadbeefdeadbeef"),
    ("at 0x7f3a2b4c5d6e", "at 0x55d0c0ffee00"),
    ("<Foo at 0x1f>", "<Foo at 0xabc>"),
    ("from 10.0.0.5:51234 x", "from 192.168.100.200:80 x"),
    ("from fe80::1 x", "from 2001:db8::8a2e:370:7334 x"),
    ("mac 0a:bb:cc:dd:ee:ff x", "mac aa:00:11:22:33:44 x"),
    ('invalid input syntax for type integer: "abc"', 'invalid input syntax for type integer: "x y z"'),
    ("invalid literal for int() with base 10: 'abc'", "invalid literal for int() with base 10: 'q-r'"),
    ('password authentication failed for user "bob"', 'password authentication failed for user "carol"'),
    ("Key (email)=(bob@example.org) already exists.", "Key (email)=(c@example.com) already exists."),
    ("mail to bob.smith@example.org failed", "mail to carol@example.org failed"),
    ('{"request_id":"aXbY","level":"error"}', '{"request_id":"zz-9","level":"error"}'),
    ("level=error trace_id=qwertz x", "level=error trace_id=poiuy x"),
    ('{"user":"bob","level":"error"}', '{"user":"a \\"b","level":"error"}'),
    ("GET /api/orders/12345?page=2 failed", "GET /api/orders/7?page=33 failed"),
    ("calling http://10.0.0.5:8080/orders/5", "calling http://10.1.1.77:8080/orders/12"),
    ("[pool-3-thread-7] x", "[pool-1-thread-12] x"),
    ("failed after 3 attempts", "failed after 17 attempts"),
    ("got 12 rows", "got 7000 rows"),
    ("sshd[4123]: x", "sshd[99]: x"),
]

DIFFERENT = [
    ("[Errno 111] Connection refused", "[Errno 113] Connection refused"),
    ("errno=111", "errno=113"),
    ("connect failed (os error 111)", "connect failed (os error 113)"),
    ("HTTP 500", "HTTP 404"),
    ('"GET / HTTP/1.1" 500 12', '"GET / HTTP/1.1" 404 12'),
    ("status: 500", "status: 404"),
    ('{"status":500}', '{"status":404}'),
    ('{"statusCode": 500}', '{"statusCode": 404}'),
    ('{"msg":"{\\"code\\":5}"}', '{"msg":"{\\"code\\":7}"}'),
    ("upstream returned 503", "upstream returned 502"),
    ("503 Service Unavailable", "404 Not Found"),
    ("got 503 from upstream", "got 502 from upstream"),
    ("SQLSTATE 57P01", "SQLSTATE 57P03"),
    ("SQLSTATE: 23505", "SQLSTATE: 23503"),
    ("SQLSTATE[HY000] [2002] x", "SQLSTATE[HY000] [2003] x"),
    ("ERROR:  23505: duplicate", "ERROR:  23503: duplicate"),
    ("ERROR 1045 (28000): denied", "ERROR 1046 (28000): denied"),
    ("failed (23505)", "failed (23503)"),
    ("exit status 1", "exit status 2"),
    ("exited with code 137", "exited with code 143"),
    ("exit code -1", "exit code 1"),
    ("exit code 0xC0000005", "exit code 0xC0000006"),
    ("killed by signal 9", "killed by signal 11"),
    ("rpc error: code = 14", "rpc error: code = 4"),
    ("ORA-12541: x", "ORA-12514: x"),
    ("open /var/lib/pg/16/main", "open /var/lib/pg/17/main"),
    ("open ./data/1.csv", "open ./data/2.csv"),
    ("open C:\\data\\1", "open C:\\data\\2"),
    ('relation "orders_2024" does not exist', 'relation "orders_2025" does not exist'),
    ("table orders full", "table customers full"),
    ("host db1.example.com down", "host db2.example.com down"),
    ("host db-1 down", "host db-2 down"),
    ("connect localhost:5432", "connect localhost:6379"),
    ("postgresql://db1/shop", "postgresql://db2/shop"),
    ("ValueError: x", "KeyError: x"),
    ("java.io.IOException: x", "java.net.SocketException: x"),
    ('File "a.py", line 12, in f', 'File "a.py", line 13, in f'),
    ("x (Main.java:12)", "x (Main.java:13)"),
    ("add failed", "bad failed"),
    ("'bob' is no table", "'tom' is no table"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_thing_with_other_values_has_one_key(one: str, other: str) -> None:
    assert canonical(one.encode()) == canonical(other.encode())


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_things_have_different_keys(one: str, other: str) -> None:
    assert canonical(one.encode()) != canonical(other.encode())


NAMES = st.from_regex(r"\A[a-z][a-z0-9_]{0,11}\Z")
CODES = st.integers(0, 99_999).map(str)
SQLSTATES = st.text(ascii_uppercase + "0123456789", min_size=5, max_size=5)
PATHS = st.lists(st.from_regex(r"\A[a-zA-Z0-9_.-]{1,7}\Z").filter(lambda part: part.strip("0123456789.-") != ""), min_size=1).map(
    lambda parts: "/" + "/".join(parts)
)
HOSTS = st.lists(st.from_regex(r"\A[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,5})?\Z"), min_size=1, max_size=4).map(".".join)
EXCEPTIONS = st.from_regex(r"\A([a-z]{1,6}\.){0,3}[A-Z][A-Za-z0-9]{1,12}(Error|Exception)\Z")
CONTEXTS = st.sampled_from(
    [
        (CODES, "connect failed: [Errno {}] refused, attempt 7"),
        (CODES, "2026-01-31T12:00:00Z INFO upstream answered with status {} in 12 ms"),
        (CODES, '{{"ts":"2026-01-31T12:00:00Z","status":{},"ms":5}}'),
        (CODES, "level=error code={} took=5ms"),
        (CODES, "process 4711 exited with code {}"),
        (CODES, "worker killed by signal {}"),
        (CODES, "request failed: HTTP {}"),
        (CODES, "exit status {}"),
        (SQLSTATES, "12:00:01 psycopg: SQLSTATE {} after 3 s"),
        (SQLSTATES, '{{"level":"error","sqlstate":"{}","n":5}}'),
        (PATHS, "cannot open {}: no space left"),
        (PATHS, '{{"path":"{}","n":1}}'),
        (PATHS, "level=error path={} n=1"),
        (NAMES, 'ERROR:  relation "{}" does not exist at character 15'),
        (NAMES, "could not create table {} in 5 ms"),
        (NAMES, "level=error table={} n=5"),
        (NAMES, '{{"table":"{}","rows":12}}'),
        (HOSTS, "connection to {}:5432 refused after 3 attempts"),
        (HOSTS, "could not resolve host {} (12 ms)"),
        (HOSTS, "dial https://{}/v1/orders: timeout"),
        (HOSTS, '{{"host":"{}","port":5432}}'),
        (EXCEPTIONS, 'Traceback (most recent call last):\n  File "a.py", line 3, in f\n    g()\n{}: 12 things'),
        (EXCEPTIONS, "2026-01-31 12:00:00 ERROR {}: took 5 s"),
    ]
)


@given(context=CONTEXTS, data=st.data())
def test_nothing_distinct_shares_a_key(context: tuple[st.SearchStrategy[str], str], data: st.DataObject) -> None:
    values, text = context
    one, other = data.draw(values), data.draw(values)
    # Words of eight and more hex digits are identities by definition, and zeros before a code say nothing.
    keys = [canonical(text.format(value).encode()) for value in (one, other)]
    alike = one == other or all(shape.HEX_RUN.search(value.encode().translate(shape.HEX)) for value in (one, other))
    assert (keys[0] == keys[1]) == (one == other) or alike


@given(st.binary(max_size=2000))
def test_junk_has_a_key(junk: bytes) -> None:
    assert canonical(junk) == canonical(junk)


@pytest.mark.parametrize(
    "piece", ["a", "0", "a.", "1.", "/a", '"', 'user "', "code ", "1:", "a:", "a-1", "((", "_", "http://", "Key ("]
)
def test_rows_of_anything_take_linear_time(piece: str) -> None:
    """What would take minutes if some pattern were tried at every place against everything behind it."""
    assert canonical((piece * MASKED_BYTES_MAX)[:MASKED_BYTES_MAX].encode())
