"""The algorithms that run on every backend, written once over the contract's operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from .contract import Operations
from .errors import UnsupportedError
from .geometry import NO_PADDING, Geometry

# numpy.pad's names: where the padding is larger than the image, its definition goes on.
_NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def extend(ops: Operations, x: Any, geometry: Geometry) -> Any:
    """x (NCHW or NHWC) with the geometry's padding around it, in its padding mode."""
    first = 2 if geometry.data_format == "NCHW" else 1
    if geometry.padding_mode == "zeros":
        widths = [(0, 0)] * 4
        widths[first : first + 2] = geometry.padding
        return ops.pad(x, widths)
    shape = ops.shape(x) or (None,) * 4
    for axis, pads in enumerate(geometry.padding, start=first):
        if not any(pads):
            continue
        n = shape[axis]
        if n is None:
            raise UnsupportedError(
                f"padding_mode: got {geometry.padding_mode!r} on an image of unknown size, expected 'zeros'.",
                hint="while tracing, give the image's height and width, or pad before.",
            )
        index = np.pad(np.arange(n), pads, mode=_NUMPY_MODES[geometry.padding_mode])  # type: ignore[call-overload]
        x = ops.take(x, index, axis)
    return x


def taps(ops: Operations, x: Any, kernel: Any, geometry: Geometry) -> Any:
    """Cross-correlation by shifting, multiplying and adding: one product per kernel element, in order.

    x is (N, C, H, W), padded already, kernel (O, C/groups, h, w), result (N, O, H', W').
    It only adds and multiplies, so it is exact in any integer dtype that holds the result.
    """
    n, channels, height, width = ops.shape(x) or ()
    outputs, per_group, h, w = ops.shape(kernel) or ()
    groups, (sh, sw), (dh, dw) = geometry.groups, geometry.stride, geometry.dilation
    rows, columns = geometry._replace(padding=NO_PADDING).output_size((height, width))
    x = ops.reshape(x, (n, groups, per_group, height, width))
    kernel = ops.reshape(kernel, (groups, outputs // groups, per_group, h * w))
    total = None
    for c in range(per_group):
        for tap in range(h * w):
            top, left = tap // w * dh, tap % w * dw
            bottom, right = top + (rows - 1) * sh + 1, left + (columns - 1) * sw + 1
            window = ops.reshape(x[:, :, c, top:bottom:sh, left:right:sw], (n, groups, 1, rows, columns))
            product = window * ops.reshape(kernel[:, :, c, tap], (1, groups, outputs // groups, 1, 1))
            total = product if total is None else total + product
    return ops.reshape(total, (n, outputs, rows, columns))
