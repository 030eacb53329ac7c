"""Images as people bring them: with their channels last, or with a constant border other than zeros."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from ..contract.arrays import T
from ..contract.operations import Operations
from ..dtypes import INTEGERS
from ..errors import DTypeError, LayoutWarning, callers_level
from ..geometry.geometry import NO_PADDING, Geometry
from ..registry import constant_for_dynamo


def planes_first(ops: Operations[T], x: T) -> T:
    """The tensor (..., H, W, C) as (..., C, H, W)."""
    rank = len(ops.known_rank(x))
    return ops.transpose(x, (*range(rank - 3), rank - 1, rank - 3, rank - 2))


def planes_last(ops: Operations[T], y: T) -> T:
    """The tensor (..., C, H, W) as (..., H, W, C)."""
    rank = len(ops.known_rank(y))
    return ops.transpose(y, (*range(rank - 3), rank - 2, rank - 1, rank - 3))


def warn_of_channels(
    shape: Sequence[int | None], kernel_size: Sequence[int | None], data_format: object, name: str = "X"
) -> None:
    """Warn of an image for a kernel of rank 2 that looks like (H, W, 3) or (H, W, 4), unless its layout was named."""
    if data_format is not None or len(shape) < 3 or kernel_size[1] == 1:
        return
    height, width, channels = shape[-3:]
    if channels not in (3, 4) or not all(type(n) is int and n > channels for n in (height, width)):
        return
    _warn(name, tuple(shape))


@constant_for_dynamo
def _warn(name: str, shape: tuple[int | None, ...]) -> None:
    warnings.warn(
        f"{name}: got shape {shape}, which looks like (H, W, C); the last axis was taken as the width. "
        "Hint: data_format='NHWC' filters each channel; data_format='NCHW' says that the last axis is the width.",
        LayoutWarning,
        stacklevel=callers_level(),
    )


def padded_by_name(
    ops: Operations[T], x: T, size: Sequence[int | None], geometry: Geometry, padding_name: str
) -> T | None:
    """X with the border that a name stands for where X's size isn't known; None if that needn't or can't be done now.

    Only with a stride does the border depend on the size.
    """
    strided = any(n is None and stride > 1 for n, stride in zip(size, geometry.stride, strict=True))
    if padding_name not in ("same", "same_lower") or not strided or ops.shape(x) is None:
        return None
    rows_axis = len(ops.known_rank(x)) - (3 if geometry.data_format == "NHWC" else 2)
    mode, lower, value = geometry.padding_mode, padding_name == "same_lower", geometry.padding_value
    for axis, extent, stride in zip((rows_axis, rows_axis + 1), geometry.extent, geometry.stride, strict=True):
        padded = ops.pad_same(x, axis, extent, stride, mode, lower, value)
        if padded is None:
            return None
        x = padded
    return x


def with_value(ops: Operations[T], x: T, geometry: Geometry, dtype: str | None, rank: int) -> tuple[T, Geometry]:
    """The image with its constant border, if that isn't of zeros, and the geometry of what is left to do.

    Args:
        ops: the backend's operations.
        x: (..., H, W) for a kernel of rank 2; (N, C, H, W) or (C, H, W), or with "NHWC" (N, H, W, C) or (H, W, C).
        geometry: with its padding in integers.
        dtype: x's dtype.
        rank: the kernel's rank.

    Raises:
        DTypeError: the dtype has no such value.
    """
    if not geometry.padding_value:
        return x, geometry
    if geometry.padding != NO_PADDING:
        shape = ops.known_rank(x)
        rows_axis = len(shape) - (3 if rank == 4 and geometry.data_format == "NHWC" else 2)
        widths = [(0, 0)] * len(shape)
        widths[rows_axis : rows_axis + 2] = geometry.padding
        with ops.scope(dtype):
            x = ops.pad(x, widths, _held(geometry.padding_value, dtype))
    return x, geometry._replace(padding=NO_PADDING, padding_value=0.0)


@constant_for_dynamo
def _held(value: float, dtype: str | None) -> float:
    """A border's value in a dtype, rounded here, so that all frameworks round it alike."""
    if dtype in INTEGERS:
        if not value.is_integer() or abs(value) >= 2.0**63:
            raise DTypeError(
                f"padding_value: got {value} beside integers, expected an integer.", hint="give X in a floating dtype."
            )
        return value
    narrow = {"float16": "float16", "float64": "float64", "complex128": "float64"}.get(dtype or "", "float32")
    with np.errstate(over="ignore"):
        rounded = float(np.asarray(value, narrow))
    if not math.isfinite(rounded):
        raise DTypeError(
            f"padding_value: got {value}, which is infinite in {dtype}, expected a number that X's dtype holds.",
            hint="give X in a wider dtype.",
        )
    return rounded
