"""The picture of the floors in docs/architecture.md, drawn from the imports in the source.

Rooms stand on the floors of that page's table; a line joins two rooms of which one imports the
other. Lines go down, or sideways where the page names it; tests/test_floors.py enforces it.
"""

import ast
import functools
import html
import re
from collections.abc import Iterator
from pathlib import Path

from latentpapers import paths, storage

PICTURE = "docs/floors.svg"
_PACKAGE = Path(__file__).resolve().parents[1]
_ROW, _HIGH, _WIDTH, _LEFT, _GAP = 92, 34, 900, 96, 10
_COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#6f6f6f")


def floors(page: Path | None = None) -> list[tuple[str, list[str]]]:
    """(name of the floor, its rooms) from the table of docs/architecture.md, top first."""
    text = (page or paths.root() / "docs" / "architecture.md").read_text()
    out = []
    for line in re.findall(r"^\| (\d[^|]*)\|([^|]*)\|", text, re.MULTILINE):
        code = " ".join(re.findall(r"`([^`]+)`", line[1]))
        rooms = [re.split(r"[./]", word)[0] for word in code.split()]
        out.append((line[0].strip(), [r for r in rooms if _is_room(r)]))
    return out


def _is_room(name: str) -> bool:
    return (_PACKAGE / name / "__init__.py").is_file() or (_PACKAGE / f"{name}.py").is_file()


def imports() -> set[tuple[str, str]]:
    """(room, room that it imports) of the library, lazy imports included."""
    found: set[tuple[str, str]] = set()
    for file in sorted(_PACKAGE.rglob("*.py")):
        room = file.relative_to(_PACKAGE).parts[0].removesuffix(".py")
        found |= {(room, other) for other in _imported(file) if other != room}
    return {(a, b) for a, b in found if not a.startswith("__")}


def _imported(file: Path) -> set[str]:
    state = file.stat()
    return set(_read(file, state.st_mtime_ns, state.st_size))


@functools.lru_cache(maxsize=1024)
def _read(file: Path, *state: int) -> tuple[str, ...]:
    return tuple(_rooms(ast.parse(file.read_text())))


def _rooms(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, *rest = name.split(".")
            if package == "latentpapers" and rest:
                yield rest[0]


def svg() -> str:
    """The picture. Equal imports and an equal page give equal bytes."""
    table = floors()
    high = _ROW * len(table) + 28
    places = dict(_places(table))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {high}" width="{_WIDTH}" '
        f'height="{high}" font-family="DejaVu Sans, Arial, sans-serif" font-size="13">',
        "<title>Floors of the library: imports go down</title>",
        f'<rect width="{_WIDTH}" height="{high}" fill="#ffffff"/>',
    ]
    parts += [_band(i, name) for i, (name, _) in enumerate(table)]
    lines = sorted((a, b) for a, b in imports() if a in places and b in places)
    parts += [_line(places[a], places[b], a, b) for a, b in lines]
    parts += [_room(places[r], r, i) for i, (_, rooms) in enumerate(table) for r in rooms]
    note = f"{len(lines)} pairs of rooms; a line leads from the room that imports down to the other"
    parts.append(f'<text x="8" y="{high - 9}" font-size="11" fill="#6f6f6f">{note}</text></svg>')
    return "\n".join(parts) + "\n"


def _places(table: list[tuple[str, list[str]]]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Room -> (centre x, top y, width)."""
    for row, (_, rooms) in enumerate(table):
        sizes = [8.0 * len(r) + 16 for r in rooms]
        free = _WIDTH - _LEFT - 10 - sum(sizes)
        gap = min(90.0, free / max(len(rooms), 1))
        x = _LEFT + (_WIDTH - _LEFT - 10 - sum(sizes) - gap * (len(rooms) - 1)) / 2
        for i, (room, size) in enumerate(zip(rooms, sizes, strict=True)):
            # rooms of a full floor stand in two heights, so that their names have space
            drop = (i % 2) * (_HIGH + 4) if len(rooms) > 9 else _HIGH / 2
            yield room, (round(x + size / 2, 1), row * _ROW + 6 + drop, round(size, 1))
            x += size + gap


def _band(row: int, name: str) -> str:
    fill = "#f7f7f7" if row % 2 else "#ffffff"
    return (
        f'<rect y="{row * _ROW}" width="{_WIDTH}" height="{_ROW}" fill="{fill}"/>'
        f'<text x="8" y="{row * _ROW + _ROW / 2 + 5}" fill="#6f6f6f">{html.escape(name)}</text>'
    )


def _line(a: tuple[float, float, float], b: tuple[float, float, float], *names: str) -> str:
    down = b[1] > a[1]
    y = (a[1] + _HIGH, b[1]) if down else (a[1] + _HIGH / 2, b[1] + _HIGH / 2)
    bend = (y[1] - y[0]) / 2
    path = f"M{a[0]} {y[0]} C{a[0]} {y[0] + bend} {b[0]} {y[1] - bend} {b[0]} {y[1]}"
    title = f"{names[0]} imports {names[1]}"
    return (
        f'<path d="{path}" fill="none" stroke="#1a1a1a" stroke-opacity="0.16" stroke-width="1.3">'
        f"<title>{html.escape(title)}</title></path>"
    )


def _room(place: tuple[float, float, float], name: str, row: int) -> str:
    x, y, size = place
    colour = _COLOURS[row % len(_COLOURS)]
    return (
        f'<rect x="{round(x - size / 2, 1)}" y="{y}" width="{size}" height="{_HIGH}" rx="6" '
        f'fill="#ffffff" stroke="{colour}" stroke-width="1.6"/>'
        f'<text x="{x}" y="{y + _HIGH / 2 + 4.5}" text-anchor="middle">{html.escape(name)}</text>'
    )


def is_current() -> bool:
    """Whether the committed picture is what the imports give."""
    file = paths.root() / PICTURE
    return file.is_file() and file.read_text() == svg()


def write() -> bool:
    """Draws the picture anew; True if it changed."""
    if is_current():
        return False
    storage.write_text(paths.root() / PICTURE, svg())
    return True
