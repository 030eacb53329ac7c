"""`convlab compare`: models from Python files, a table, and files written at the end or not at all."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from ..atomic import check_writable, write_text
from ..errors import ModelError, ModelFileError
from ..models.adapters import model_owner
from ..models.compare.compare import compare
from ..models.compare.comparison import ERRORS_ARE, Comparison, verdict
from ..models.compare.report import as_dict, comparison_page
from ..page import page
from .quiet import quiet
from .screen import print_line, print_table


def run_compare(
    console: Console, a: str, b: str, inputs: Path | None, seed: int, json_file: Path | None, html_file: Path | None
) -> bool | None:
    """Run the command; True if the models compute the same, False if not, None if only parts were compared."""
    check_writable(json_file, html_file)
    images = None if inputs is None else _array(inputs)
    with quiet():
        first, second = model(a), model(b)
        comparison = compare(first, second, images, seed=seed)
    show_comparison(console, comparison, a, b)
    if json_file is not None:
        write_text(json_file, json.dumps(as_dict(comparison), indent=1) + "\n")
    if html_file is not None:
        options = [*(["--inputs", str(inputs)] if inputs else []), "--seed", str(seed)]
        write_text(html_file, comparison_page(comparison, a, b, shlex.join(["convlab", "compare", a, b, *options])))
    return comparison.same


def model(place: str) -> Any:
    """The model that "file.py:name" or "package.module:name" stands for; it may be a function that returns the model.

    The file is run: give only those that you trust.
    """
    where, separator, name = place.rpartition(":")
    if not (where and separator and name.isidentifier()):
        raise ModelError(f"{place}: expected file.py:name or package.module:name.", hint="models.py:model")
    if where.endswith(".py"):
        if not Path(where).is_file():
            raise ModelError(f"{place}: no such file.", hint="give the path of a Python file.")
        names = _trusted(place, lambda: _run_file(where))
    else:
        names = _trusted(place, lambda: vars(importlib.import_module(where)))
    if name not in names:
        raise ModelError(f"{place}: there is no {name!r} in it.", hint="a model, or a function that returns one.")
    value = names[name]
    return value if model_owner(value) or not callable(value) else _trusted(place, value)


def _trusted(place: str, function: Callable[[], Any]) -> Any:
    """The result of a user's own code; whatever it raises becomes an error of one line."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{place}: its own code fails ({type(error).__name__}: {error}).", hint="run it with python to see where."
        ) from error


def _run_file(path: str) -> dict[str, Any]:
    """A script's names; the modules beside it are forgotten, for the other script may have some of the same names."""
    folder = str(Path(path).absolute().parent)
    before = set(sys.modules)
    sys.path.insert(0, folder)  # Python does the same for a script.
    try:
        return runpy.run_path(path)
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(folder + os.sep):
                del sys.modules[name]


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
            raise ValueError("it holds something else")
        return array
    except Exception as error:  # A damaged file may raise any error in NumPy and zipfile.
        raise ModelFileError(f"{path}: isn't an array of numbers ({error}).", hint="numpy.save writes one.") from error


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
