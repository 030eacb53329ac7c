"""MXNet 1.9.1 on any NumPy: MXNet's modules, and they alone, see a NumPy that still has its old names.

MXNet calls NumPy only through its Python API. So each module of MXNet is executed with a `__builtins__`
of its own, whose `__import__` answers `import numpy` with the facade below. NumPy itself, the process's
builtins and every other package stay as they are, and it makes no difference who imports MXNet, when, or
whether an earlier plain import failed half-way.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy

from . import private


def _gone(name: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise AttributeError(f"numpy.{name} left NumPy long ago; MXNet can't call it here")

    function.__name__ = name
    return function


def _real(*names: str) -> Any:
    return next(getattr(numpy, name) for name in names if hasattr(numpy, name))


# The names that MXNet 1.9.1 uses and current NumPy has dropped.
_OLD_NAMES: dict[str, Any] = {
    "PZERO": 0.0,
    "NZERO": -0.0,
    "PINF": float("inf"),
    "NINF": float("-inf"),
    "Inf": float("inf"),
    "NAN": float("nan"),
    "NaN": float("nan"),
    "bool": numpy.bool_,
    "int": int,
    "float": float,
    "object": object,
    "float_": numpy.float64,
    "alltrue": numpy.all,
    "sometrue": numpy.any,
    "product": numpy.prod,
    "cumproduct": numpy.cumprod,
    "round_": numpy.round,
    "in1d": _real("isin", "in1d"),
    "trapz": _real("trapezoid", "trapz"),
    "row_stack": numpy.vstack,
    "msort": lambda a: numpy.sort(a, axis=0),
    "compat": types.SimpleNamespace(basestring=str),
    **{name: _gone(name) for name in ("mirr", "npv", "pmt", "ppmt", "pv", "rate")},
}


class _Facade(types.ModuleType):
    """The real NumPy, with the old names where it has none."""

    def __getattr__(self, name: str) -> Any:
        if name in _OLD_NAMES:
            return _OLD_NAMES[name]
        return getattr(numpy, name)


_facade = _Facade("numpy", "NumPy as MXNet 1.9.1 knows it.")


def _import(
    name: str,
    globals: Any = None,
    locals: Any = None,
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> Any:
    module = builtins.__import__(name, globals, locals, fromlist, level)
    return _facade if module is numpy else module


def _plain(value: Any) -> Any:
    if isinstance(value, numpy.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(item) for item in value)
    return value


def _attribute_string(value: Any = "") -> str:
    """`str` for operator attributes: NumPy 2 writes `np.int64(3)`, which MXNet's parser doesn't read."""
    return str(_plain(value))


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        own: dict[str, Any] = {"__import__": _import}
        if module.__name__.startswith("mxnet._ctypes."):
            own["str"] = _attribute_string
        module.__dict__["__builtins__"] = {**builtins.__dict__, **own}
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] != "mxnet":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


_finder = _Finder()


def import_mxnet() -> types.ModuleType:
    """Import MXNet through the facade, from now on and for everybody in the process."""
    if "mxnet" not in sys.modules:
        # A plain import that failed half-way has left modules behind that saw the bare NumPy: they are loaded anew.
        for name in [name for name in sys.modules if name.startswith("mxnet.")]:
            del sys.modules[name]
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        with _openmp_kept():
            return importlib.import_module("mxnet")
    return importlib.import_module("mxnet")


@contextlib.contextmanager
def _openmp_kept() -> Iterator[None]:
    """A context that keeps the number of OpenMP threads of the thread that imports MXNet, which MXNet sets to 1.

    PyTorch shares it: its operations would be slower there, and its sums would have other bits than in other threads.
    """
    before = _openmp_threads(ctypes.CDLL(None))
    yield
    library = private.library()
    if before is None:
        with ThreadPoolExecutor(1) as pool:  # a new thread has the number that the process started with
            before = pool.submit(_openmp_threads, library).result()
    if before is not None:
        library.omp_set_num_threads(before)


def _openmp_threads(library: Any) -> int | None:
    """The number of OpenMP threads of the calling thread; None if the library has no OpenMP."""
    try:
        return int(library.omp_get_max_threads())
    except AttributeError:
        return None
