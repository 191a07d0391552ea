"""The typed API is checked: tests/typing is read by both type checkers, strictly, and covers the names of the root."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import outlast.extend

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))


def test_both_type_checkers_read_it_strictly() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert "tests/typing" in tools["mypy"]["files"]
    assert tools["mypy"]["strict"] is True
    assert "tests/typing" in tools["basedpyright"]["include"]
    assert tools["basedpyright"]["typeCheckingMode"] == "strict"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_uses_public_names_alone(path: Path) -> None:
    modules = [
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("outlast")
    ]
    assert [module for module in modules if "._" in module] == []


@pytest.mark.parametrize("door", [outlast, outlast.extend], ids=lambda door: door.__name__)
def test_it_uses_every_name_of_the_doors(door: ModuleType) -> None:
    used: set[str] = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == door.__name__:
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == door.__name__:
                used.add(node.attr)
    missing = sorted(set(door.__all__) - used)
    assert not missing, f"use them in tests/typing as their users do, with assert_type: {', '.join(missing)}"
