"""The compiled kernels as calls within XLA's programs on a CPU (`handler`), and what may become such a call."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convlab.algorithms.adjoint import image_gradient
from convlab.compiled import kernels, threads
from convlab.contract.operations import Operations
from convlab.contract.rule import Part, Rule
from convlab.geometry.geometry import Geometry


@functools.cache
def works() -> bool:
    """Whether this XLA can call the compiled kernels; it is asked while lowering, since numba takes a while to load."""
    try:
        from . import handler

        handler.registered()
    except Exception as error:
        # Whatever it is, XLA's own operations serve.
        warnings.warn(f"convlab: XLA can't call the compiled kernels: {error}.", RuntimeWarning, stacklevel=2)
        return False
    return True


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


def compute(ops: Operations, rule: Rule, a: Any, b: Any, algorithm: kernels.KernelAlgorithm) -> Any:
    """A rule's result by a compiled kernel, while a program is lowered; half precision is computed in float32."""
    narrow = a.dtype if a.dtype.itemsize < 4 else None
    if narrow:
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    exact = rule.algorithm == "auto"
    correlate = functools.partial(_call, "y", algorithm, exact)
    if rule.part == "y":
        y = correlate(a, b, rule.geometry)
    elif rule.part == "x":
        y = image_gradient(ops, a, b, rule.geometry, rule.size, correlate)
    else:
        y = _call("k", algorithm, exact, a, b, rule.geometry)
    return y.astype(narrow) if narrow else y


def _call(part: Part, algorithm: kernels.KernelAlgorithm, exact: bool, a: Any, b: Any, geometry: Geometry) -> Any:
    """The call that computes the result (part "y") or the gradient of K (part "k")."""
    from convlab.compiled import stages

    from . import handler

    make = stages.correlation_program if part == "y" else stages.gradient_program
    program = make(a.shape, b.shape, geometry, a.dtype.name, algorithm, exact)
    handler.prepare(program, a.dtype.name)
    shape = Rule(part, geometry).output_shape(a.shape, b.shape)
    results = [
        jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
        for shape, dtype in ((shape, a.dtype), ((program.space,), jnp.uint8))
    ]
    numbers = np.concatenate([[threads.count()], program.numbers])
    y, _ = jax.ffi.ffi_call(handler.registered(), results)(a, b, program=numbers)
    return y
