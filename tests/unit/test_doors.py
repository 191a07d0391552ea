"""What is public is listed, and what is private stays in its room."""

import ast
import graphlib
import importlib
import pkgutil
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import outlast

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "outlast"
LISTS = ROOT / "tests" / "unit" / "public_names"
SYSTEMS = ("outlast.changes", "outlast.jobs", "outlast.procedures", "outlast.streams", "outlast.tables")
ADAPTERS = ("outlast.disk", "outlast.etcd", "outlast.http", "outlast.postgres", "outlast.sqlite")
SYSTEMS_AND_ADAPTERS = (*SYSTEMS, *ADAPTERS)
DOORS = ("outlast", "outlast.admission", "outlast.extend", "outlast._lazily")
OPEN_TO_THE_PACKAGE = ("outlast.logs",)
"""The runtime and the guard of programs write through the same sink as the logs of a service."""


def public_modules() -> Iterator[str]:
    yield "outlast"
    for module in pkgutil.walk_packages([str(PACKAGE)], "outlast."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, for types too, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            for alias in node.names:
                if alias.name.startswith("_"):
                    yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def is_below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def private_room(module: str) -> str | None:
    """The package that a private module is private to; None for one that is not."""
    parts = module.split(".")
    first = next((place for place, part in enumerate(parts) if part.startswith("_") and not part.startswith("__")), None)
    return None if first is None else ".".join(parts[:first])


def imports_at_run_time(path: Path, modules: Collection[str]) -> Iterator[str]:
    """The modules that a file imports while it is loaded: not for types, not inside a function."""
    bodies = [ast.parse(path.read_text(encoding="utf-8")).body]
    while bodies:
        for node in bodies.pop():
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (module if module in modules else node.module for module in inner)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.If | ast.Try | ast.ClassDef) and "TYPE_CHECKING" not in ast.unparse(node).partition(":")[0]:
                bodies.append(node.body)


FILES = sorted(PACKAGE.rglob("*.py"))
WINGS = [path for path in FILES if name_of(path).startswith(SYSTEMS_AND_ADAPTERS)]


@pytest.mark.parametrize("module", sorted(public_modules()))
def test_a_public_module_exports_what_its_list_says(module: str) -> None:
    listed = (LISTS / f"{module}.txt").read_text(encoding="utf-8").split()
    names = importlib.import_module(module).__all__
    assert sorted(names) == listed, f"tests/unit/public_names/{module}.txt and __all__ differ: change both, and the changelog"
    assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []


def test_every_list_belongs_to_a_module() -> None:
    assert sorted(path.stem for path in LISTS.glob("*.txt")) == sorted(public_modules())


def test_the_root_has_few_names() -> None:
    assert len(outlast.__all__) <= 25


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_private_is_imported_by_its_own_package_alone(path: Path) -> None:
    me = name_of(path)
    wrong = [
        f"line {line}: {module}"
        for line, module in imports(path)
        if (room := private_room(module)) and room.startswith("outlast") and not is_below(me, room)
        if not any(is_below(room, wing) for wing in OPEN_TO_THE_PACKAGE)
    ]
    assert not wrong, f"private to another package: export it there, or do without: {', '.join(wrong)}"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if name_of(path).startswith(SYSTEMS_AND_ADAPTERS)],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_systems_and_adapters_come_in_by_the_doors(path: Path) -> None:
    wing = ".".join(name_of(path).split(".")[:2])
    wrong = [
        f"line {line}: {module}"
        for line, module in imports(path)
        if is_below(module, "outlast")
        and module not in DOORS
        and not is_below(module, wing)
        and not (module.startswith(SYSTEMS_AND_ADAPTERS) and private_room(module) is None)
    ]
    assert not wrong, f"deeper than outlast and outlast.extend: {', '.join(wrong)}"


def test_no_module_imports_itself_through_others() -> None:
    """The root is left out: it loads its names when they are first used."""
    modules = {name_of(path): path for path in FILES if path != PACKAGE / "__init__.py"}
    graph = {
        name: {other for other in imports_at_run_time(path, modules) if other in modules} - {name}
        for name, path in modules.items()
    }
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules)


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in FILES}), ids=lambda path: str(path.relative_to(PACKAGE.parent))
)
def test_a_folder_can_be_looked_over(folder: Path) -> None:
    modules = [path.name for path in folder.glob("*.py") if not path.name.startswith("__")]
    assert len(modules) <= 14 or folder.name in {"_core", "jobs"}, (
        f"{len(modules)} modules: make a folder of what belongs together"
    )
