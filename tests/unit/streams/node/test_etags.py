"""Entity tags: they differ when the body does, or what is said about its end."""

from __future__ import annotations

import pytest

from outlast.streams._node.etags import etag, matches


def test_every_other_answer_has_another_one() -> None:
    tags = {
        etag(stream, first, following, up_to_date=up_to_date, closed=closed)
        for stream in ("a", "b")
        for first, following in ((0, 1), (0, 2), (1, 2), (2, 2))
        for up_to_date, closed in ((False, False), (True, False), (True, True))
    }
    assert len(tags) == 2 * 4 * 3


@pytest.mark.parametrize("header", [b'"a:0:1"', b'W/"a:0:1"', b'"x", "a:0:1"', b' "x" ,W/"a:0:1"', b"*"])
def test_a_tag_is_found_in_a_header(header: bytes) -> None:
    assert matches(header, etag("a", 0, 1, up_to_date=False, closed=False))


@pytest.mark.parametrize("header", [None, b"", b'"a:0:1:u"', b"a:0:1", b'"', b'"*"', b'"x"'])
def test_another_one_is_not(header: bytes | None) -> None:
    assert not matches(header, etag("a", 0, 1, up_to_date=False, closed=False))
