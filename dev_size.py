"""Counts statements, lines and public names: of each folder of src/outlast, of tests, bench and the set-up scripts.

    python3 dev.py size [--json]

A statement is a node of the syntax tree, wherever it stands: `if x: return` is two, a docstring is one. Lines are all there are.
A public name is bound at the level of a module or in the body of a public class and begins with no underscore; what is imported
does not count. Sizes compare one state of the repository with another by the same count; they say nothing about quality.
"""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("src", "outlast")
SCRIPTS = "dev.py"


@dataclass(frozen=True)
class Size:
    """The size of some Python files."""

    statements: int = 0
    lines: int = 0
    public_names: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(
            self.statements + other.statements,
            self.lines + other.lines,
            self.public_names + other.public_names,
        )


def main(arguments: Sequence[str]) -> int:
    """Print the table, or with `--json` an object of it; return the exit code."""
    if list(arguments) not in ([], ["--json"]):
        print(f"size takes no argument but --json, and was given {' '.join(arguments)}", file=sys.stderr)
        return 2
    sizes = sizes_below(ROOT)
    if arguments:
        print(json.dumps({name: asdict(size) for name, size in sizes.items()}, indent=2))
        return 0
    print(f"{'':<24}{'statements':>12}{'lines':>10}{'public names':>14}")
    for name, size in sizes.items():
        print(f"{name:<24}{size.statements:>12,}{size.lines:>10,}{size.public_names:>14,}")
    return 0


def sizes_below(root: Path) -> dict[str, Size]:
    """Return the size of each folder of the package with all below it, the package's sum, the rest, and the total."""
    package = root / PACKAGE
    folders = sorted(path for path in package.iterdir() if path.is_dir() and any(path.rglob("*.py")))
    sizes = {str(path.relative_to(root)): size_of(path.rglob("*.py")) for path in folders}
    sizes["src/outlast/*.py"] = size_of(package.glob("*.py"))
    sizes["src/outlast"] = sum(sizes.values(), Size())
    rest = {name: size_of((root / name).rglob("*.py")) for name in ("tests", "bench")}
    rest[SCRIPTS] = size_of(root.glob("dev*.py"))
    return sizes | rest | {"total": sum(rest.values(), sizes["src/outlast"])}


def size_of(paths: Iterable[Path]) -> Size:
    """Add up some files."""
    return sum((size_of_text(path.read_text(encoding="utf-8")) for path in paths), Size())


def size_of_text(text: str) -> Size:
    """Count one file."""
    tree = ast.parse(text)
    return Size(
        statements=sum(isinstance(node, ast.stmt) for node in ast.walk(tree)),
        lines=len(text.splitlines()),
        public_names=len(set(public_names(tree.body))),
    )


def public_names(body: Iterable[ast.stmt], within: str = "") -> Iterator[str]:
    """Yield what a body binds, and what the bodies of its public classes do, under its full name."""
    for statement in body:
        for name in bound(statement):
            if not name.startswith("_"):
                yield within + name
        if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
            yield from public_names(statement.body, f"{within}{statement.name}.")
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            inner = [part for part in ast.iter_child_nodes(statement) if isinstance(part, ast.stmt)]
            handlers = [part for handler in getattr(statement, "handlers", ()) for part in handler.body]
            yield from public_names([*inner, *handlers], within)


def bound(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that one statement binds itself; an import binds what is somebody else's."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            names = (node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
            yield from (node.id for node in names if isinstance(node.ctx, ast.Store))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case _:
            pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
