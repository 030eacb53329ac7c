"""The algorithms that run on every backend, written once over the contract's operations."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from .contract import Operations
from .geometry import NO_PADDING, Geometry

# So many products a compiler gets at once, to fuse them; a loop does the rest. More would take it seconds.
_FUSED = 64


def extend(ops: Operations, x: Any, geometry: Geometry) -> Any:
    """x (NCHW or NHWC) with the geometry's padding around it, in its padding mode."""
    first = 2 if geometry.data_format == "NCHW" else 1
    if geometry.padding_mode == "zeros":
        if geometry.padding == NO_PADDING:
            return x
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
            x = ops.take(x, [source(i, n, mode) for i in range(-pads[0], n + pads[1])], axis)
    return x


def source(i: int, n: int, mode: str) -> int:
    """Which of n pixels stands at position i; as in numpy.pad, the definition goes on beyond one image's width."""
    if mode == "circular":
        return i % n
    if mode == "replicate" or n == 1:
        return min(max(i, 0), n - 1)
    period = 2 * (n - 1)
    return min(i % period, -i % period)


def taps(
    ops: Operations, x: Any, kernel: Any, geometry: Geometry, subtract: Callable[[Any, Any, Any], Any] | None = None
) -> Any:
    """Cross-correlation by shifting, multiplying and adding, in the order (channel, kernel row, kernel column).

    x is (N, C, H, W), padded already, kernel (O, C/groups, h, w), result (N, O, H', W').
    It only adds and multiplies, so it is exact in any integer dtype that holds the result. `subtract(total, a, b)` is
    total - a * b, by default the adapter's.
    """
    subtract = subtract or ops.subtract_product
    n, _, height, width = ops.sizes(x)
    outputs, per_group, h, w = ops.sizes(kernel)
    groups, (sh, sw), (dh, dw) = geometry.groups, geometry.stride, geometry.dilation
    rows, columns = geometry._replace(padding=NO_PADDING).output_size((height, width))
    x = ops.reshape(x, (n, groups, per_group, height, width))
    # TensorFlow regroups chains of additions, but not of subtractions.
    weights = -ops.reshape(kernel, (groups, outputs // groups, per_group * h, w))

    def add_row(total: Any, channel: Any, p: Any) -> Any:
        image = ops.part(ops.part(x, channel, 1, 2), p * dh, (rows - 1) * sh + 1, 3)
        line = ops.part(weights, channel * h + p, 1, 2)
        for q in range(w):
            window = image[:, :, :, ::sh, q * dw : q * dw + (columns - 1) * sw + 1 : sw]
            total = subtract(total, window, ops.reshape(line[:, :, :, q], (1, groups, outputs // groups, 1, 1)))
        return total

    def add_channels(total: Any, first: Any, count: int) -> Any:
        for channel, p in itertools.product(range(count), range(h)):
            total = add_row(total, first + channel, p)
        return total

    total = ops.zeros((n, groups, outputs // groups, rows, columns), x)
    at_once = min(_FUSED // (h * w), per_group)
    if not at_once:  # a large kernel: row by row
        total = ops.fold(lambda total, index: add_row(total, index // h, index % h), total, per_group * h)
    else:
        steps, rest = divmod(per_group, at_once)
        if steps > 1:
            total = ops.fold(lambda total, index: add_channels(total, index * at_once, at_once), total, steps)
        else:
            total = add_channels(total, 0, at_once)
        total = add_channels(total, per_group - rest, rest)
    return ops.reshape(total, (n, outputs, rows, columns))
