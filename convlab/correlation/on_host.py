"""`reproducible=True` for CPU tensors: the compiled kernels on their memory.

The bits are those of the operations in `convlab.algorithms.reproducible`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..algorithms.adjoint import image_gradient
from ..algorithms.reproducible import narrow, widen
from ..compiled import reproducible
from ..compiled.kernels import ready
from ..compiled.tiling import numba_installed
from ..contract.arrays import T
from ..contract.operations import Operations
from ..contract.rule import Part, Rule
from ..dtypes import FLOATS, LEAST
from ..geometry.geometry import NO_PADDING, Geometry
from ..reference import ops as reference

# Loading the kernels takes a second, once. It pays for at least so many products.
WORTH_LOADING = 2**15


def reproducible_on_host(ops: Operations[T], rule: Rule, *inputs: T) -> bool:
    """Whether the compiled kernels compute this rule of these tensors."""
    if rule.algorithm != "reproducible" or not kernels_take(ops, *inputs):
        return False
    shapes = [ops.sizes(x) for x in inputs]
    empty = 0 in (math.prod(shape) for shape in (*shapes, rule.output_shape(*shapes)))
    return not empty and worth_loading(rule.products(*shapes))


def kernels_take(ops: Operations, *tensors: Any) -> bool:
    """Whether the compiled kernels can read tensors of one dtype: those on a CPU that have values."""
    return numba_installed() and ops.mode(*tensors) == "eager" and ops.dtype(tensors[0]) in FLOATS


def worth_loading(products: int) -> bool:
    """Whether the compiled kernels are loaded, or so many products are worth it."""
    return reproducible.is_loaded() or products >= WORTH_LOADING


def reproduce_on_host(ops: Operations[T], rule: Rule, *inputs: T) -> T:
    """A rule's result, where `reproducible_on_host`; without gradient."""
    dtype = ops.dtype(inputs[0]) or ""
    half = dtype in ("float16", "bfloat16")
    arrays = [ops.as_host(ops.cast(x, "float32") if half else x) for x in inputs]
    with reference.scope(None):
        y = _COMPUTE[rule.part](ops, rule, *arrays)
    result = ops.from_host(y, inputs[0])
    with ops.scope(dtype):
        return narrow(ops, result, dtype) if half else result


def _result(ops: Operations, rule: Rule, x: np.ndarray, k: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    bias = np.zeros(len(k)) if b is None else widen(reference, b)
    y = ops.host_empty(rule.output_shape(x.shape, k.shape), x.dtype)
    return reproducible.correlate_in_order(x, ready(k), bias, rule.geometry, y, LEAST[x.dtype.name])


def _image_gradient(
    ops: Operations, rule: Rule, dy: np.ndarray, k: np.ndarray, b: np.ndarray | None = None
) -> np.ndarray:
    # Where a padding mode repeats pixels, their gradients are added up before they are rounded.
    repeats = rule.geometry.padding_mode != "zeros" and rule.geometry.padding != NO_PADDING
    dtype, limit = (np.dtype(np.float64), 0.0) if repeats else (dy.dtype, LEAST[dy.dtype.name])
    channels, phases = k.shape[1] * rule.geometry.groups, math.prod(rule.geometry.stride)
    # Each phase of a channel is a channel of the correlation.
    bias = np.repeat(np.zeros(channels) if b is None else widen(reference, b), phases)

    def correlate(dy: np.ndarray, k: np.ndarray, geometry: Geometry) -> np.ndarray:
        shape = (len(dy), len(k), *geometry.output_size((dy.shape[2], dy.shape[3])))
        out = ops.host_empty(shape, dtype)
        return reproducible.correlate_in_order(dy, k, bias, geometry, out, limit, phases)

    dx = image_gradient(reference, dy, ready(k), rule.geometry, rule.size, correlate)
    if repeats:
        dx = narrow(reference, dx, dy.dtype.name)
    if dx.flags.c_contiguous:
        return dx
    contiguous = ops.host_empty(dx.shape, dx.dtype)
    contiguous[...] = dx
    return contiguous


def _kernel_gradient(ops: Operations, rule: Rule, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    dk = ops.host_empty(rule.output_shape(x.shape, dy.shape), x.dtype)
    return reproducible.gradient_in_order(x, dy, rule.geometry, dk)


def _bias_gradient(ops: Operations, rule: Rule, dy: np.ndarray) -> np.ndarray:
    return narrow(reference, reproducible.sums_in_order(dy), dy.dtype.name)


_COMPUTE: dict[Part, Callable[..., Any]] = {
    "y": _result,
    "x": _image_gradient,
    "k": _kernel_gradient,
    "b": _bias_gradient,
}
