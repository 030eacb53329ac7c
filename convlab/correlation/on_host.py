"""`reproducible=True` by the compiled kernels: on the memory of CPU tensors, and in programs that can call them.

The bits are those of the operations in `convlab.algorithms.reproducible`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..algorithms.adjoint import image_gradient
from ..algorithms.reproducible import add_images, narrow, widen
from ..compiled import reproducible
from ..compiled.kernels import ready
from ..compiled.tiling import numba_installed
from ..contract.arrays import T
from ..contract.operations import Mode, Operations
from ..contract.rule import Part, Rule
from ..dtypes import FLOATS, LEAST
from ..geometry.geometry import NO_PADDING, Geometry
from ..reference import ops as reference

# Loading the kernels takes a second, once. It pays for at least so many products.
WORTH_LOADING = 2**15


class InOrder(NamedTuple):
    """The compiled kernels as functions of tensors of float32 or of float64.

    Attributes:
        correlate: y (N, O, H', W') from x, k, a bias of float64 or None, the geometry, how far apart the output
            channels are that are computed together, and whether y is float64 and not rounded to x's dtype.
        kernel_gradient: dK from x, dY and the rule.
        plane_sums: the sums (N, O) in float64 of each plane of dY (N, O, H', W').
    """

    correlate: Callable[[Any, Any, Any, Geometry, int, bool], Any]
    kernel_gradient: Callable[[Any, Any, Rule], Any]
    plane_sums: Callable[[Any], Any]


def reproducible_on_host(ops: Operations[T], rule: Rule, *inputs: T, mode: Mode = "eager") -> bool:
    """Whether the compiled kernels compute this rule of these tensors, if these are of a mode."""
    if rule.algorithm != "reproducible" or not kernels_take(ops, *inputs, mode=mode):
        return False
    shapes = [ops.sizes(x) for x in inputs]
    empty = 0 in (math.prod(shape) for shape in (*shapes, rule.output_shape(*shapes)))
    return not empty and worth_loading(rule.products(*shapes))


def kernels_take(ops: Operations, *tensors: Any, mode: Mode = "eager") -> bool:
    """Whether the compiled kernels can read tensors of one dtype and a mode: those on a CPU that have values."""
    return numba_installed() and ops.mode(*tensors) == mode and ops.dtype(tensors[0]) in FLOATS


def worth_loading(products: int) -> bool:
    """Whether the compiled kernels are loaded, or so many products are worth it."""
    return reproducible.is_loaded() or products >= WORTH_LOADING


def reproduce_on_host(ops: Operations[T], rule: Rule, *inputs: T) -> T:
    """A rule's result, where `reproducible_on_host`; without gradient."""
    dtype = ops.dtype(inputs[0]) or ""
    half = dtype in ("float16", "bfloat16")
    arrays = [ready(ops.as_host(ops.cast(x, "float32") if half else x)) for x in inputs]
    with reference.scope(None):
        y = reproduce_in_order(reference, on_memory(ops), rule, *arrays)
    if not y.flags.c_contiguous:
        part, y = y, ops.host_empty(y.shape, y.dtype)
        y[...] = part
    result = ops.from_host(y, inputs[0])
    with ops.scope(dtype):
        return narrow(ops, result, dtype) if half else result


def on_memory(ops: Operations) -> InOrder:
    """The compiled kernels for NumPy arrays, with results in memory that the backend's tensors can have."""

    def correlate(
        x: np.ndarray, k: np.ndarray, bias: np.ndarray | None, geometry: Geometry, phases: int, unrounded: bool
    ) -> np.ndarray:
        dtype, limit = (np.dtype(np.float64), 0.0) if unrounded else (x.dtype, LEAST[x.dtype.name])
        y = ops.host_empty((len(x), len(k), *geometry.output_size((x.shape[2], x.shape[3]))), dtype)
        bias = np.zeros(len(k)) if bias is None else bias
        return reproducible.correlate_in_order(x, k, bias, geometry, y, limit, phases)

    def kernel_gradient(x: np.ndarray, dy: np.ndarray, rule: Rule) -> np.ndarray:
        dk = ops.host_empty(rule.output_shape(x.shape, dy.shape), x.dtype)
        return reproducible.gradient_in_order(x, dy, rule.geometry, dk)

    return InOrder(correlate, kernel_gradient, reproducible.plane_sums_in_order)


def reproduce_in_order(ops: Operations[T], kernels: InOrder, rule: Rule, *inputs: T) -> T:
    """A rule's result for tensors of float32 or of float64 by compiled kernels; `ops` computes what is around them."""
    y: T = _COMPUTE[rule.part](ops, kernels, rule, *inputs)
    return y


def _result(ops: Operations[T], kernels: InOrder, rule: Rule, x: T, k: T, b: T | None = None) -> Any:
    return kernels.correlate(x, k, None if b is None else widen(ops, b), rule.geometry, 1, False)


def _image_gradient(ops: Operations[T], kernels: InOrder, rule: Rule, dy: T, k: T, b: T | None = None) -> T:
    # Where a padding mode repeats pixels, their gradients are added up before they are rounded.
    repeats = rule.geometry.padding_mode != "zeros" and rule.geometry.padding != NO_PADDING

    phases = math.prod(rule.geometry.stride)
    bias = None if b is None else _for_each_phase(ops, widen(ops, b), phases)

    def correlate(dy: T, k: T, geometry: Geometry) -> Any:
        return kernels.correlate(dy, k, bias, geometry, phases, repeats)

    dx = image_gradient(ops, dy, k, rule.geometry, rule.size, correlate)
    return narrow(ops, dx, ops.dtype(dy) or "") if repeats else dx


def _for_each_phase(ops: Operations[T], bias: T, phases: int) -> T:
    """The bias of a correlation whose output channels are the phases of each channel, one after another."""
    repeated = ops.reshape(bias, (-1, 1)) + ops.zeros((1, phases), bias)
    return ops.reshape(repeated, (-1,))


def _kernel_gradient(ops: Operations[T], kernels: InOrder, rule: Rule, x: T, dy: T) -> Any:
    return kernels.kernel_gradient(x, dy, rule)


def _bias_gradient(ops: Operations[T], kernels: InOrder, rule: Rule, dy: T) -> T:
    sums: T = kernels.plane_sums(dy)
    return narrow(ops, add_images(ops, sums), ops.dtype(dy) or "")


_COMPUTE: dict[Part, Callable[..., Any]] = {
    "y": _result,
    "x": _image_gradient,
    "k": _kernel_gradient,
    "b": _bias_gradient,
}
