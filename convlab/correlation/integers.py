"""Correlation of integers, exactly or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..algorithms.border import channels_first, with_border
from ..algorithms.taps import taps
from ..contract.arrays import T
from ..contract.operations import Operations
from ..errors import IntegerOverflowError
from ..geometry.geometry import NO_PADDING, Geometry
from ..planning.execute import native
from ..reference import ops as reference


def exact_correlation(ops: Operations[T], x: T, k: T, b: T | None, geometry: Geometry) -> T:
    """The exact correlation of int64 tensors, without the bias, or an error if the result leaves int64.

    If no sum can reach 2**53 it is computed by the framework's float64 convolution, else in int64 with a check.
    """
    concrete = all(value is None or ops.is_concrete(value) for value in (x, k, b))
    bound = _largest_sum(_numpy(ops, x), _numpy(ops, k), _numpy(ops, b), geometry) if concrete else 0.0
    if concrete and bound < 2.0**53:
        y = native(ops, ops.cast(x, "float64"), ops.cast(k, "float64"), geometry)
        return ops.cast(y, "int64")
    channels_last = geometry.data_format == "NHWC"
    if channels_last:
        x, k = channels_first(ops, x, k)
        geometry = geometry._replace(data_format="NCHW")
    x, geometry = with_border(ops, x, geometry), geometry._replace(padding=NO_PADDING)
    if bound >= 2.0**63:
        _check_overflow(_numpy(ops, x), _numpy(ops, k), _numpy(ops, b), geometry)
    y = taps(ops, x, k, geometry)
    return ops.transpose(y, (0, 2, 3, 1)) if channels_last else y


def _numpy(ops: Operations[T], x: T | None) -> Any:
    return None if x is None else ops.to_numpy(x)


def _largest_sum(x: np.ndarray, k: np.ndarray, b: np.ndarray | None, geometry: Geometry) -> float:
    """An upper bound on the magnitude of every partial sum; the factor 1.001 covers its own rounding."""
    if not x.size:
        return 0.0
    axes = (1, 2, 3) if geometry.data_format == "NCHW" else (0, 1, 2)
    largest = max(float(x.max()), -float(x.min()))
    bias = 0.0 if b is None else float(np.abs(b.astype(float)).max())
    return 1.001 * (largest * float(np.abs(k.astype(float)).sum(axes).max()) + bias)


def _check_overflow(x: np.ndarray, k: np.ndarray, b: np.ndarray | None, geometry: Geometry) -> None:
    """Raise `IntegerOverflowError` if the exact result, computed in Python's own integers, leaves int64.

    Since int64 arithmetic is exact modulo 2**64, partial sums may leave int64.
    """
    result = taps(reference, x.astype(object), k.astype(object), geometry)
    if b is not None:
        result = result + np.reshape(b, (-1, 1, 1)).astype(object)
    for extreme in (result.max(), result.min()):
        if not -(2**63) <= extreme < 2**63:
            raise IntegerOverflowError(
                f"X, K: got a result of {extreme}, expected one that fits into int64.",
                hint="convert X to float64, or scale the kernel down.",
            )
