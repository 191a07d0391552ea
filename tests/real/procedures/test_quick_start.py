"""The quick start of docs/procedures.md runs as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "procedures.md"


def test_the_quick_start_runs_as_it_is_written(tmp_path: Path) -> None:
    (sample,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[:1]
    (tmp_path / "shop.py").write_text(sample, encoding="utf-8")
    for _ in range(2):
        # The second time the key has a record already, which is done: it is submitted again.
        done = subprocess.run([sys.executable, "shop.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (0, "cpu in shard 3\n"), done.stderr
    assert (tmp_path / "work.db").exists()
