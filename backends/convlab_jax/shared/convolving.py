"""Convolutions and dense layers that a model's code computes by itself, with kernels that it may compute, too."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from convlab.models.layers.folded import convolution
from convlab.models.layers.layer import Dense, Layer
from convlab.models.layers.spatial import oihw

from .program import Equation, Value, computed_array

_LAYOUTS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


class Numbers:
    """An array that is equal to another one by its numbers, as an argument of a function.

    Attributes:
        array: the numbers.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._bytes = array.dtype.name, array.shape, array.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbers) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)


def convolve(x: Array, kernel: Numbers, stride: Any, padding: Any, dilation: Any, groups: int) -> Array:
    """The convolution of images (N, H, W, C), or of as many axes as the kernel, HWIO, has, by `jax.lax`."""
    layout, numbers = _LAYOUTS[kernel.array.ndim - 2], jnp.asarray(kernel.array)
    options: dict[str, Any] = {"dimension_numbers": layout, "feature_group_count": groups}
    return jnp.asarray(jax.lax.conv_general_dilated(x, numbers, stride, padding, rhs_dilation=dilation, **options))


def dense(x: Array, kernel: Numbers) -> Array:
    """The product of rows (N, I) and a kernel (I, O)."""
    return jnp.asarray(x @ kernel.array)


def convolving(equation: Equation) -> tuple[Any, dict[str, Any], Value] | None:
    """The function that an operation on a value and a known kernel is, its arguments, and the value."""
    if len(equation.inputs) != 2:
        return None
    x, known = equation.inputs
    if not isinstance(x, Value) or not x.varies or (isinstance(known, Value) and known.varies):
        return None
    options, rank = equation.params, len(x.shape) - 2
    if equation.primitive == "dot_general":
        of_channels = options["dimension_numbers"] == (((rank + 1,), (0,)), ((), ())) and len(known.shape) == 2
        kernel = computed_array(known) if of_channels else None
        if kernel is None or rank == 0:
            return None if kernel is None else (dense, {"kernel": Numbers(kernel)}, x)
        ones = (1,) * rank
        geometry = {"stride": ones, "padding": ((0, 0),) * rank, "dilation": ones, "groups": 1}
        return convolve, {"kernel": Numbers(kernel.reshape(*ones, *kernel.shape)), **geometry}, x
    if equation.primitive != "conv_general_dilated" or rank not in _LAYOUTS:
        return None
    layout = jax.lax.conv_dimension_numbers(x.shape, known.shape, _LAYOUTS[rank])
    alone = options["batch_group_count"] == 1 and {*options["lhs_dilation"]} == {1}
    kernel = computed_array(known) if alone and options["dimension_numbers"] == layout else None
    if kernel is None:
        return None
    geometry = {
        "stride": options["window_strides"],
        "padding": tuple(map(tuple, options["padding"])),
        "dilation": options["rhs_dilation"],
        "groups": options["feature_group_count"],
    }
    return convolve, {"kernel": Numbers(kernel), **geometry}, x


def _read_convolution(kernel: Numbers, **geometry: Any) -> Layer:
    return convolution(oihw(kernel.array), None, kernel.array.dtype.name, **geometry)


READERS: list[tuple[Any, Any]] = [
    (convolve, _read_convolution),
    (dense, lambda kernel: Dense(np.ascontiguousarray(kernel.array.T), None, kernel.array.dtype.name)),
]
