"""Text and tables on a terminal, wrapped between words; a pipe gets each line whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDEST = 10_000


def open_console(stderr: bool = False) -> Console:
    """A console that writes no escape codes where NO_COLOR is set (https://no-color.org), neither does it to a pipe."""
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(stderr=stderr, color_system=None if plain else "auto", force_interactive=False if plain else None)


def busy(console: Console, text: str) -> AbstractContextManager[object]:
    """A context in which a terminal shows that something is done; not where escape codes are unwanted."""
    return nullcontext() if console.color_system is None else console.status(text)


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a text as it is, whatever characters it contains."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print a table; where the terminal is too narrow for it, print each row as lines of "column: cell".

    Strings in cells are rich's markup.
    """
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    width = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    if width <= console.width:
        console.print(table)
    elif not console.is_terminal:
        Console(file=console.file, width=width).print(table)
    else:
        for row in rows:
            first, *cells = (Text.from_markup(cell) if isinstance(cell, str) else cell for cell in row)
            console.print(first, style="bold")
            for name, cell in zip(head[1:], cells, strict=True):
                if cell.plain:
                    console.print(Text.assemble("  ", f"{name}: " if name else "", Text(", ").join(cell.split())))
