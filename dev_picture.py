"""Draws docs/architecture.svg: the packages in their layers, and which of them import which.

    python3 dev.py picture [--check]

The layers are those of the import contract in pyproject.toml (two of which neither imports the other stand side by side), the
packages and folders those in src/outlast, the lines the imports that run (not those for type checkers). A line that follows
from others is left out: what imports the runtime may import what lies below it. `--check` writes nothing, and the exit code
is 1 when the file is not what would be written.
"""

from __future__ import annotations

import ast
import math
import sys
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent
PICTURE = Path("docs", "architecture.svg")
PACKAGE = Path("src", "outlast")
DOORS = ("outlast", "outlast.extend")
"""Drawn above the runtime, of which they show the public part."""

WIDTH = 900
BOX_HEIGHT, GAP_Y, GAP_X, MARGIN, LANE = 46, 48, 24, 20, 9
"""In pixels, as all lengths here."""
LETTER = 6.2
"""The width of a letter of the small print, at most."""
STYLE = """
  text { font: 14px sans-serif; text-anchor: middle; fill: #1a1a1a }
  .folders { font-size: 11px; fill: #555 }
  rect { fill: #f4f6f8; stroke: #7a8794; rx: 4px }
  .door { fill: #fdf3dc; stroke: #c29a3a }
  .public { fill: #e6f1ea; stroke: #4f8a64 }
  path { fill: none; stroke: #9aa5b1; stroke-width: 1.2; marker-end: url(#tip) }
"""
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<polygon points="0,0 8,4 0,8" fill="#9aa5b1"/></marker>'
)

Edge = tuple[str, str]


@dataclass(frozen=True)
class Box:
    """A package at its place."""

    name: str
    folders: tuple[str, ...]
    x: float
    y: float
    width: float

    @property
    def middle(self) -> float:
        """Half way between its sides."""
        return self.x + self.width / 2


def main(arguments: Sequence[str]) -> int:
    """Write the picture, or with `--check` compare it; return the exit code."""
    if list(arguments) not in ([], ["--check"]):
        print(f"picture takes no argument but --check, and was given {' '.join(arguments)}", file=sys.stderr)
        return 2
    text = picture(ROOT)
    path = ROOT / PICTURE
    if not arguments:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        print(f"{PICTURE} does not show what there is: run `python3 dev.py picture`", file=sys.stderr)
        return 1
    return 0


def picture(root: Path) -> str:
    """Return the SVG of what lies below `root`."""
    rows = layers(root)
    names = [name for row in rows for name in row]
    all_edges = imports(root, names)
    edges = without_detours(all_edges)
    boxes = placed(side_by_side(rows, all_edges), {name: folders(root, name) for name in names})
    height = max(box.y for box in boxes.values()) + BOX_HEIGHT + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}">',
        f"<style>{STYLE}</style>",
        TIP,
        *lines_between(boxes, edges),
        *(drawn for box in boxes.values() for drawn in shape(box)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def layers(root: Path) -> list[list[str]]:
    """Return the layers of the import contract from the top to the bottom, each with its packages, and with the doors."""
    tools = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contract = next(each for each in tools["importlinter"]["contracts"] if each["type"] == "layers")
    rows = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
    rows = [[name for name in row if (root / PACKAGE / name.partition(".")[2]).is_dir()] for row in rows]
    rows.insert(next(place for place, row in enumerate(rows) if "outlast._runtime" in row), list(DOORS))
    return [row for row in rows if row]


def folders(root: Path, name: str) -> tuple[str, ...]:
    """Return the folders of a package that have modules."""
    package = root / PACKAGE / name.partition(".")[2]
    if name in DOORS:
        return ()
    return tuple(sorted(path.parent.name for path in package.glob("*/__init__.py")))


def imports(root: Path, names: Sequence[str]) -> set[Edge]:
    """Return which package imports which, by the modules inside them."""
    edges: set[Edge] = set()
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE.parent).with_suffix("").parts
        importer = home(".".join(parts).removesuffix(".__init__"), names)
        # The root imports for type checkers what it loads when it is first used.
        found = imported_modules(ast.parse(path.read_text(encoding="utf-8")), for_types=importer == "outlast")
        edges |= {(importer, imported) for module in found if (imported := home(module, names)) and importer}
    return {(importer, imported) for importer, imported in edges if importer != imported}


def home(module: str, names: Sequence[str]) -> str:
    """Return the package that a module lies in, an empty text for one that is in none of them."""
    if module in DOORS:
        return module
    return next((name for name in names if name not in DOORS and f"{module}.".startswith(f"{name}.")), "")


def imported_modules(node: ast.AST, *, for_types: bool) -> Iterator[str]:
    """Yield the modules that are imported anywhere below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING" and not for_types:
            continue
        if isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            # `from outlast import postgres` imports a package as well.
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        yield from imported_modules(child, for_types=for_types)


def without_detours(edges: set[Edge]) -> list[Edge]:
    """Leave out each edge whose end can be reached by others."""

    def reached(start: str, end: str, without: Edge) -> bool:
        seen, waiting = {start}, [start]
        while waiting:
            at = waiting.pop()
            for edge in edges - {without}:
                if edge[0] == at and edge[1] not in seen:
                    seen.add(edge[1])
                    waiting.append(edge[1])
        return end in seen

    return sorted(edge for edge in edges if not reached(*edge, without=edge))


def side_by_side(rows: Sequence[Sequence[str]], edges: set[Edge]) -> list[list[str]]:
    """Join neighbouring layers of which neither imports the other."""
    joined: list[list[str]] = []
    for row in rows:
        if joined and not any(upper in joined[-1] and lower in row for upper, lower in edges):
            joined[-1] += row
        else:
            joined.append(list(row))
    return joined


def placed(rows: Sequence[Sequence[str]], inside: dict[str, tuple[str, ...]]) -> dict[str, Box]:
    """Lay the rows below each other, each centred."""
    boxes: dict[str, Box] = {}
    for number, row in enumerate(rows):
        widths = [max(LETTER * len(" ".join(inside[name])), 9 * len(name)) + 30 for name in row]
        x = (WIDTH - math.fsum(widths) - GAP_X * (len(row) - 1)) / 2
        for name, width in zip(row, widths, strict=True):
            boxes[name] = Box(name, inside[name], x, MARGIN + number * (BOX_HEIGHT + GAP_Y), width)
            x += width + GAP_X
    return boxes


def shape(box: Box) -> Iterator[str]:
    """Yield the parts of a box."""
    private = box.name.partition(".")[2].startswith("_")
    look = ' class="door"' if box.name in DOORS else "" if private else ' class="public"'
    yield f'<rect{look} x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{BOX_HEIGHT}"/>'
    name_y = box.y + (20 if box.folders else 28)
    name = box.name if box.name in DOORS else box.name.partition(".")[2]
    yield f'<text x="{box.middle:.0f}" y="{name_y:.0f}">{escape(name)}</text>'
    if box.folders:
        yield f'<text class="folders" x="{box.middle:.0f}" y="{box.y + 37:.0f}">{escape(" ".join(box.folders))}</text>'


def lines_between(boxes: dict[str, Box], edges: Sequence[Edge]) -> Iterator[str]:
    """Yield a line for each edge: straight down to the next row, else by a lane of its own at the side, where no box is."""
    lanes = 0
    for upper, lower in ((boxes[importer], boxes[imported]) for importer, imported in edges):
        if lower.y - upper.y > BOX_HEIGHT + GAP_Y:
            lanes += 1
            yield detour(upper, lower, LANE * lanes)
        else:
            yield straight(upper, lower)


def straight(upper: Box, lower: Box) -> str:
    """Draw an import of the next row, or of a neighbour in the same one."""
    if upper.y == lower.y:
        left, right = (upper.x + upper.width, lower.x) if upper.x < lower.x else (upper.x, lower.x + lower.width)
        return f'<path d="M{left:.0f},{upper.y + BOX_HEIGHT / 2:.0f} H{right:.0f}"/>'
    start_x, end_x = towards(upper, lower.middle), towards(lower, upper.middle)
    return f'<path d="M{start_x:.0f},{upper.y + BOX_HEIGHT:.0f} L{end_x:.0f},{lower.y:.0f}"/>'


def detour(upper: Box, lower: Box, lane: int) -> str:
    """Draw an import that passes rows: out into the gap below, down at the side, and in through the gap above."""
    to_the_left = upper.middle <= WIDTH / 2
    lane_x = lane if to_the_left else WIDTH - lane
    side = -1 if to_the_left else 1
    start_x, end_x = upper.middle + side * upper.width / 4, lower.middle + side * (lower.width / 2 - lane)
    start_y, in_y = upper.y + BOX_HEIGHT, lower.y - GAP_Y / 3 - lane / 4
    way = f"M{start_x:.0f},{start_y:.0f} V{start_y + lane / 2:.0f} H{lane_x:.0f} V{in_y:.0f} H{end_x:.0f} V{lower.y:.0f}"
    return f'<path d="{way}"/>'


def towards(box: Box, x: float) -> float:
    """Return where on a box a line towards `x` begins: within its middle third."""
    return box.middle + max(-box.width / 3, min(box.width / 3, (x - box.middle) / 4))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
