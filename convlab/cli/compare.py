"""`convlab compare`: models from Python files, a table, and files written at the end or not at all."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..atomic import check_writable, write_text
from ..models.adapters import read
from ..models.compare.compare import compare_read
from ..models.compare.comparison import ERRORS_ARE, Comparison, verdict
from ..models.compare.inputs import batches, images_of
from ..models.compare.report import as_dict, comparison_page
from ..page import page
from ..parity.pool import WorkerFailed
from .elsewhere import ModelElsewhere
from .places import array_of, model_of
from .quiet import quiet
from .screen import print_line, print_table


def run_compare(
    console: Console,
    a: str,
    b: str,
    inputs: Path | None,
    seed: int,
    python: str,
    json_file: Path | None,
    html_file: Path | None,
) -> bool | None:
    """Run the command; True if the models compute the same, False if not, None if only parts were compared."""
    check_writable(json_file, html_file)
    images = None if inputs is None else images_of(array_of(inputs))
    example = None if images is None else images[0]
    with quiet(), contextlib.ExitStack() as stack:
        first = read(model_of(a), example, "a")
        if python:
            elsewhere = ModelElsewhere(b, python, inputs)
            stack.callback(elsewhere.stop)
            elsewhere.start()
            second = elsewhere.model()
        else:
            second = read(model_of(b), example, "b")
        comparison = compare_read(first, second, batches(images, first), seed=seed)
        if python and elsewhere.failure:
            raise WorkerFailed(f"{b}: {elsewhere.failure}")
    show_comparison(console, comparison, a, b)
    if json_file is not None:
        write_text(json_file, json.dumps(as_dict(comparison), indent=1) + "\n")
    if html_file is not None:
        options = [*(["--inputs", str(inputs)] if inputs else []), "--seed", str(seed)]
        options += ["--python", python] if python else []
        write_text(html_file, comparison_page(comparison, a, b, shlex.join(["convlab", "compare", a, b, *options])))
    return comparison.same


def show_comparison(console: Console, comparison: Comparison, a: str, b: str) -> None:
    """A table of the layers, what wasn't compared, and the verdict."""
    quantities = list(dict.fromkeys(name for row in comparison.rows for name in row.errors))
    for which, name, backend in zip(("first", "second"), (a, b), comparison.backends, strict=True):
        print_line(console, f"{which}: {name} ({backend})")
    rows: list[list[str | Text]] = [
        [Text(row.a or "-"), Text(row.b or "-"), row.kind, *(_cell(row.errors.get(name)) for name in quantities)]
        for row in comparison.rows
    ]
    print_table(
        console,
        ["first", "second", "layer", *(quantity.replace("gradient of ", "d") for quantity in quantities)],
        rows,
    )
    if rows:
        print_line(console, f"({ERRORS_ARE})", "dim")
    label = "compared only as part of the whole model" if comparison.whole_results_compared else "not compared"
    for path, note in comparison.uncompared.items():
        print_line(console, f"{label}: {path}: {note}", "dim")
    style = {True: "bold green", False: "bold red", None: "bold yellow"}[comparison.same]
    for line in verdict(comparison):
        print_line(console, line, style)
        style = ""


def _cell(error: float | None) -> str:
    if error is None:
        return ""
    return f"[{'red' if error > 1 else 'green'}]{page.number(error)}[/]"
