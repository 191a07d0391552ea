"""Bodies: in pieces, inflated within the bound, and refused for what is wrong with them."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from outlast.tables._http import body
from outlast.tables._http.answers import RefusedError
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence

LINES = b"cpu,host=a v=1 1\n" * 20_000
"""340 kB: several pieces, inflated; so that they are several before it too, see `noise`."""
TOO_LARGE = "the body is larger than the %d bytes that it may have, before or after inflating: send it in parts"


def noise(size: int) -> bytes:
    """Bytes that no compression makes smaller."""
    import random

    return random.Random(1).randbytes(size)


def read(parts: Sequence[bytes], encoding: str = "", *, length: int | None = None, bytes_max: int = 1 << 20) -> bytes:
    """Read a body that comes in these parts."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]
    messages.append({"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return run_virtual(lambda: body.read(receive, encoding.encode(), length, bytes_max))


def refused(parts: Sequence[bytes], encoding: str = "", **more: Any) -> tuple[int, str]:
    """Read a body that is refused."""
    with pytest.raises(RefusedError) as caught:
        read(parts, encoding, **more)
    return caught.value.refused.status, caught.value.refused.text


def deflated(data: bytes, wbits: int) -> bytes:
    deflater = zlib.compressobj(wbits=wbits)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_body_in_parts_is_put_together(encoding: str) -> None:
    assert read([LINES[:5], b"", LINES[5:]], encoding) == LINES
    assert read([LINES], encoding) == LINES
    assert read([b""], encoding) == b""


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_gzip_is_inflated_however_it_is_cut(encoding: str) -> None:
    packed = gzip.compress(LINES)
    assert read([packed], encoding) == LINES
    assert read([packed[:1], packed[1:11], packed[11:]], encoding) == LINES
    large = noise(3 * body.PIECE_BYTES)
    assert read([gzip.compress(large)], encoding) == large


def test_gzip_of_several_members_is_one_body_and_zeros_behind_it_are_none() -> None:
    packed = gzip.compress(b"cpu v=1\n") + gzip.compress(b"") + gzip.compress(b"cpu v=2\n")
    assert read([packed], "gzip") == b"cpu v=1\ncpu v=2\n"
    assert read([packed + b"\0" * 100], "gzip") == b"cpu v=1\ncpu v=2\n"


@pytest.mark.parametrize("wbits", [zlib.MAX_WBITS, -zlib.MAX_WBITS])
def test_deflate_is_inflated_with_the_head_of_zlib_and_without(wbits: int) -> None:
    assert read([deflated(LINES, wbits)], "deflate") == LINES


@pytest.mark.parametrize(
    ("encoding", "data", "reason"),
    [
        ("gzip", b"cpu v=1", "incorrect header check"),
        ("gzip", gzip.compress(LINES)[:-1], "it ends too early"),
        ("gzip", b"", "it ends too early"),
        ("gzip", gzip.compress(LINES)[:-8] + b"\0" * 8, "incorrect data check"),
        ("gzip", gzip.compress(b"cpu v=1\n") + b"cpu v=2\n", "incorrect header check"),
        ("gzip", gzip.compress(b"cpu v=1\n") + gzip.compress(b"cpu v=2\n")[:-4], "it ends too early"),
        ("gzip", gzip.compress(b"") * 1_001, "it has more than 1000 members"),
        ("deflate", b"\xff\xff\xff", "invalid block type"),
        ("deflate", deflated(LINES, zlib.MAX_WBITS)[:-5], "it ends too early"),
        ("deflate", deflated(LINES, zlib.MAX_WBITS) * 2, "there is more behind its end"),
        ("deflate", deflated(LINES, -zlib.MAX_WBITS) + b"\1", "there is more behind its end"),
    ],
)
def test_what_is_broken_is_400(encoding: str, data: bytes, reason: str) -> None:
    assert refused([data], encoding) == (400, f"the body cannot be read as {encoding}: {reason}")


def test_a_body_may_have_as_many_bytes_as_are_allowed_and_none_more() -> None:
    for packed, encoding in ((LINES, ""), (gzip.compress(LINES), "gzip"), (deflated(LINES, 15), "deflate")):
        assert read([packed], encoding, bytes_max=len(LINES)) == LINES
        assert refused([packed], encoding, bytes_max=len(LINES) - 1) == (413, TOO_LARGE % (len(LINES) - 1))
    assert refused([LINES[:10], LINES[10:]], bytes_max=len(LINES) - 1)[0] == 413
    # What is declared to be too large is not read at all.
    assert refused([], length=101, bytes_max=100) == (413, TOO_LARGE % 100)
    assert refused([noise(101)], "gzip", bytes_max=100) == (413, TOO_LARGE % 100)


def test_a_gzip_bomb_costs_no_more_than_the_bound() -> None:
    """64 MiB in 64 kB, and the same again inside: what is asked of zlib is never more than the bound and one byte."""
    bomb = gzip.compress(b"\0" * (64 << 20), compresslevel=1)
    asked: list[int] = []

    class Watched:
        def __init__(self, wbits: int) -> None:
            self._inner = inflater(wbits)

        def decompress(self, data: bytes, length: int) -> bytes:
            asked.append(length)
            return self._inner.decompress(data, length)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    inflater = zlib.decompressobj
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body.zlib, "decompressobj", Watched)
        assert refused([bomb], "gzip", bytes_max=1 << 20) == (413, TOO_LARGE % (1 << 20))
    assert asked == [(1 << 20) + 1]


def test_many_small_members_cost_a_step_each_and_no_copy_of_what_follows() -> None:
    """A thousand members, and 2 MB behind them: of what follows a member, one piece at most is handed over."""
    data = gzip.compress(b"") * 999 + gzip.compress(noise(2 << 20))
    handed: list[int] = []
    inflater = zlib.decompressobj

    class Watched:
        def __init__(self, wbits: int) -> None:
            self._inner = inflater(wbits)

        def decompress(self, data: bytes, length: int) -> bytes:
            handed.append(len(data))
            return self._inner.decompress(data, length)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body.zlib, "decompressobj", Watched)
        assert len(read([data], "gzip", bytes_max=4 << 20)) == 2 << 20
    assert max(handed) == body.PIECE_BYTES
    assert len(handed) < 1_100


def test_a_client_that_leaves_is_nobody_to_answer() -> None:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"cpu", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    with pytest.raises(body.ClientGoneError):
        run_virtual(lambda: body.read(receive, b"", None, 100))
