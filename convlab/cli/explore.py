"""`convlab explore`: the explorer, a page of its own that the browser opens."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from ..page import page
from .terminal import BAD_INPUT, fail, say

EXPLORER = Path(page.__file__).with_name("explorer.html")


def explore(
    path: Annotated[bool, typer.Option("--path", help="Print where the page is, and open nothing.")] = False,
) -> None:
    """Open the explorer in the browser: convolution number by number, and why frameworks differ."""
    if not path and not webbrowser.open(EXPLORER.as_uri()):
        fail(f"no browser could be started. Hint: open {EXPLORER} in one.")
        raise typer.Exit(BAD_INPUT)
    say(str(EXPLORER))
