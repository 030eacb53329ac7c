"""The algorithms that run on every backend, written once over the contract's operations."""

from __future__ import annotations

from typing import Any

from .contract import Operations
from .geometry import NO_PADDING, Geometry


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
        n, mode = shape[axis], geometry.padding_mode
        if n is None:
            x = ops.border(x, axis, pads, mode)
        else:
            x = ops.take(x, [_source(i, n, mode) for i in range(-pads[0], n + pads[1])], axis)
    return x


def _source(i: int, n: int, mode: str) -> int:
    """Which of n pixels stands at position i; as in numpy.pad, the definition goes on beyond one image's width."""
    if mode == "circular":
        return i % n
    if mode == "replicate" or n == 1:
        return min(max(i, 0), n - 1)
    period = 2 * (n - 1)
    return min(i % period, -i % period)


def taps(ops: Operations, x: Any, kernel: Any, geometry: Geometry) -> Any:
    """Cross-correlation by shifting, multiplying and adding: one product per kernel element, in order.

    x is (N, C, H, W), padded already, kernel (O, C/groups, h, w), result (N, O, H', W').
    It only adds and multiplies, so it is exact in any integer dtype that holds the result.
    """
    n, _, height, width = ops.sizes(x)
    outputs, per_group, h, w = ops.sizes(kernel)
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
