"""What the command line's arguments stand for: models in Python files, arrays in `.npy` files."""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, ModelFileError
from ..models.adapters import model_owner


def model_of(place: str) -> Any:
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


def array_of(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array in an `.npy` file, or the arrays in an `.npz` file by their names."""
    try:
        content = np.load(path, allow_pickle=False)
        several = not isinstance(content, np.ndarray)
        arrays: dict[str, np.ndarray] = {**content} if several else {"": content}
        if not arrays or any(array.dtype.kind not in "biufc" for array in arrays.values()):
            raise ValueError("it holds something else")
        return arrays if several else arrays[""]
    except Exception as error:  # A damaged file may raise any error in NumPy and zipfile.
        raise ModelFileError(f"{path}: isn't an array of numbers ({error}).", hint="numpy.save writes one.") from error
