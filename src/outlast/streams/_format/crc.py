"""The CRC-32C of two pieces joined, from those of each: a payload is summed up before it is known what stands before it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

POLYNOMIAL: Final = 0x82F63B78
"""Castagnoli's, with its bits in reverse: 0x1EDC6F41 in RFC 3720, section 12.1."""
ONE: Final = 1 << 31
"""The polynomial 1, with its bits in reverse."""
SIZES_KNOWN: Final = 256
"""Sizes whose power is remembered: producers send batches of the same size, and a power takes seven times a product."""


def combine(crc: int, crc_behind: int, size_behind: int) -> int:
    """Return the CRC of A + B, from that of A, that of B and the bytes of B.

    It is crc(A) x^(8 |B|) + crc(B) modulo the polynomial: what is done to the bits at the beginning and the end cancels out.
    """
    return _product(_power(size_behind), crc) ^ crc_behind


def _product(a: int, b: int) -> int:
    """Return a b modulo the polynomial."""
    product = 0
    while a:
        if a & ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ POLYNOMIAL if b & 1 else b >> 1
    return product


def _squares() -> tuple[int, ...]:
    """Return x^(8 2^n) for n from 0 to 31: a byte has eight bits."""
    square = ONE >> 8
    squares: list[int] = []
    for _ in range(32):
        squares.append(square)
        square = _product(square, square)
    return tuple(squares)


SQUARES: Final = _squares()


@lru_cache(SIZES_KNOWN)
def _power(size: int) -> int:
    """Return x^(8 size) modulo the polynomial, for a size below 4 GiB."""
    power = ONE
    for number, square in enumerate(SQUARES):
        if size >> number & 1:
            power = _product(square, power)
    return power
