"""Whether XLA's programs on a CPU can call the compiled kernels, and programs for several numbers of threads."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax

from convlab.compiled import threads


@functools.cache
def calls() -> ModuleType | None:
    """The module `calls`, or None if this XLA can't call the kernels; asked while lowering, since it loads numba."""
    try:
        from . import calls, handler

        handler.registered()
    except Exception as error:
        # Whatever it is, XLA's own operations serve.
        warnings.warn(f"convlab: XLA can't call the compiled kernels: {error}.", RuntimeWarning, stacklevel=2)
        return None
    return calls


def per_number_of_threads(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function, compiled for each number of threads that it is called with (`threads.limited`)."""
    programs: dict[int, Callable[..., Any]] = {}

    def run(*arguments: Any) -> Any:
        number = threads.count()
        if number not in programs:
            # JAX takes a function that it has seen for one that is compiled.
            programs[number] = jax.jit(functools.partial(function))
        return programs[number](*arguments)

    return run
