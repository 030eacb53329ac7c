"""What the commands share: the terminal, exit codes, and errors as one line."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .screen import open_console

BAD_INPUT = 2
DISAGREEMENT = 1
PARTIAL = 3
INTERRUPTED = 130

console = open_console()
errors = open_console(stderr=True)


def fail(message: str) -> None:
    """Print one line to stderr."""
    errors.print(f"convlab: {message}", style="red", markup=False, emoji=False, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Print one line to stdout."""
    console.print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A bar on stderr, which a terminal shows and a file doesn't."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, transient=True, disable=errors.color_system is None)
