"""Draw the floors of the core in docs/explained/architecture.md, from the code.

`--check` only says whether the picture is old.

A room is a module or package directly in `convlab/`. The floors are those of import-linter's contract in
pyproject.toml. An arrow is an import; one that follows from others isn't drawn.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE, PAGE = ROOT / "convlab", ROOT / "docs" / "explained" / "architecture.md"
START, END = "<!-- floors: made by docs/floors.py -->", "<!-- /floors -->"


def floors() -> list[list[str]]:
    """The rooms of each floor, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer.split(" | ") for layer in layers]


def files(room: str) -> list[Path]:
    """The files of a room, the one with its docstring first."""
    folder = CORE / room
    if not folder.is_dir():
        return [CORE / f"{room}.py"]
    return [folder / "__init__.py", *sorted(path for path in folder.rglob("*.py") if path != folder / "__init__.py")]


def purpose(room: str) -> str:
    """The first line of a room's docstring."""
    return (ast.get_docstring(ast.parse(files(room)[0].read_text())) or "").partition("\n")[0]


def imported(room: str) -> set[str]:
    """The rooms that a room imports."""
    rooms = set()
    for path in files(room):
        package = path.relative_to(ROOT).parent.parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
                names = [*base[1:2], *(alias.name for alias in node.names if len(base) < 3)]
                rooms.update(name for name in names if name)
    return rooms - {room}


def arrows(rooms: list[str]) -> list[tuple[str, str]]:
    """The imports between rooms but for those that follow from others; rooms come from the top down."""
    direct = {room: imported(room) & {*rooms} for room in rooms}
    below: dict[str, set[str]] = {}
    for room in reversed(rooms):
        below[room] = direct[room].union(*(below[other] for other in direct[room]))
    return [
        (room, other)
        for room in rooms
        for other in rooms
        if other in direct[room] and not any(other in below[third] for third in direct[room])
    ]


def picture() -> str:
    """The floors as a diagram that GitHub and the site draw, and what each room is for."""
    storeys = floors()
    rooms = [room for floor in storeys for room in floor]
    lines = ["```mermaid", "flowchart TD"]
    for number, floor in enumerate(storeys):
        lines += [f"  subgraph floor{number}[ ]", *(f"    {room}" for room in floor), "  end"]
    lines += [f"  {room} --> {other}" for room, other in arrows(rooms)]
    rows = [f"| `{room}` | {purpose(room)} |" for room in rooms]
    return "\n".join([*lines, "```", "", "| room | what it is for |", "|---|---|", *rows])


def main() -> None:
    """Write the picture, or say that it is old."""
    text = PAGE.read_text()
    before, rest = text.split(START)
    after = rest.split(END)[1]
    drawn = f"{before}{START}\n{picture()}\n{END}{after}"
    if "--check" in sys.argv and drawn != text:
        sys.exit("docs/explained/architecture.md: its picture of the floors is old. Hint: run `python docs/floors.py`.")
    PAGE.write_text(drawn)


if __name__ == "__main__":
    main()
