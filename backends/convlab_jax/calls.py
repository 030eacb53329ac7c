"""The compiled kernels as calls within XLA's programs on a CPU (`handler`), and what may become such a call.

It needs numba; `ffi.calls` imports it where it works.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convlab.algorithms.adjoint import image_gradient
from convlab.algorithms.reproducible import narrow
from convlab.compiled import kernels, stages, threads
from convlab.contract.operations import Operations
from convlab.contract.rule import Part, Rule
from convlab.correlation.on_host import InOrder, reproduce_in_order
from convlab.geometry.geometry import Geometry

from . import handler


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
    make = stages.correlation_program if part == "y" else stages.gradient_program
    program = make(a.shape, b.shape, geometry, a.dtype.name, algorithm, exact)
    return _run(program, Rule(part, geometry).output_shape(a.shape, b.shape), a.dtype, a, b)


def reproduce(ops: Operations, rule: Rule, *inputs: Any) -> Any:
    """The result of a rule of `reproducible=True` by compiled kernels, while a program is lowered."""
    dtype = inputs[0].dtype
    half = dtype.itemsize < 4
    with ops.scope("float64"):
        wide = [x.astype(jnp.float32) for x in inputs] if half else inputs
        y = reproduce_in_order(ops, InOrder(_correlate, _kernel_gradient, _plane_sums), rule, *wide)
        return narrow(ops, y, dtype.name) if half else y


def _correlate(x: Any, k: Any, bias: Any, geometry: Geometry, phases: int, unrounded: bool) -> Any:
    program = stages.correlation_in_order_program(x.shape, k.shape, geometry, x.dtype.name, phases, unrounded)
    shape = Rule("y", geometry).output_shape(x.shape, k.shape)
    bias = jnp.zeros(len(k), jnp.float64) if bias is None else bias
    return _run(program, shape, jnp.float64 if unrounded else x.dtype, x, k, bias)


def _kernel_gradient(x: Any, dy: Any, rule: Rule) -> Any:
    program = stages.gradient_in_order_program(x.shape, dy.shape, rule.geometry, x.dtype.name, threads.count())
    return _run(program, rule.output_shape(x.shape, dy.shape), x.dtype, x, dy)


def _plane_sums(dy: Any) -> Any:
    return _run(stages.plane_sums_program(dy.shape), dy.shape[:2], jnp.float64, dy)


def _run(program: stages.Program, shape: Sequence[int], dtype: Any, *inputs: Any) -> Any:
    """The result of a program, of some shape and dtype."""
    handler.prepare(program, inputs[0].dtype.name)
    results = [
        jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
        for shape, dtype in ((shape, dtype), ((program.space,), jnp.uint8))
    ]
    numbers = np.concatenate([[threads.count()], program.numbers])
    y, _ = jax.ffi.ffi_call(handler.registered(), results)(*inputs, program=numbers)
    return y
