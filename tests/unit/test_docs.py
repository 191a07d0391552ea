"""Every Python sample in the documents runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES = [
    pytest.param(match.group(1), id=f"{path.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}")
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    if path.exists()
    for text in [path.read_text(encoding="utf-8")]
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_sample_runs(sample: str) -> None:
    exec(compile(sample, "sample", "exec"), {"__name__": "sample"})  # noqa: S102 - our own documents
