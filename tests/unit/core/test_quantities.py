"""Counts and sizes as people read them."""

from __future__ import annotations

import pytest

from outlast._core.quantities import amount, size_text


def test_one_of_a_thing_is_singular_and_thousands_are_separated() -> None:
    assert [amount(1, "line"), amount(12_345, "line")] == ["1 line", "12,345 lines"]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1023, "1023 B"),
        (2048, "2.0 KiB"),
        (280_000, "273.4 KiB"),
        (2_812_349, "2.7 MiB"),
        (64 << 20, "64.0 MiB"),
        (1.5 * (1 << 30), "1.5 GiB"),
        (5 << 40, "5.0 TiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_a_size_is_told_in_the_largest_unit_that_fits(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text
