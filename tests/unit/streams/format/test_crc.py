"""Two checksums made one."""

from __future__ import annotations

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.streams._format.crc import combine


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 1_000))
def test_the_checksum_of_both_is_that_of_their_bytes_one_behind_the_other(before: bytes, behind: bytes, times: int) -> None:
    behind *= times
    both = google_crc32c.value(before + behind)
    assert combine(google_crc32c.value(before), google_crc32c.value(behind), len(behind)) == both


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, 10_240_000, 32 << 20])
def test_large_pieces_are_no_exception(size: int) -> None:
    behind = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert combine(google_crc32c.value(b"head"), google_crc32c.value(behind), size) == google_crc32c.value(b"head" + behind)
