"""Cross-correlation by shifting, multiplying and adding, which runs on every backend."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from ..contract.arrays import T
from ..contract.operations import Operations
from ..geometry.geometry import NO_PADDING, Geometry
from .border import channels_first, with_border

# A compiler is given so many products at once, to fuse them; a loop does the rest. More would take it seconds.
_FUSED = 64
# For a large kernel a compiler is given about so many products at once. With fewer, XLA's loop isn't vectorised.
_FEWEST = 30


def too_long(size: Sequence[int | None], geometry: Geometry) -> bool:
    """Whether Eigen's convolution may leave results of an image of this size unwritten.

    JAX and TensorFlow run it on CPUs. It computes the number of results along an axis in float32, which is exact up to
    2**24.
    """
    return any(type(n) is int and n + sum(pads) > 2**24 for n, pads in zip(size, geometry.padding, strict=True))


def by_taps(ops: Operations[T], x: T, kernel: T, geometry: Geometry) -> T:
    """What `Operations.conv` computes, by `taps`: a correlation in either layout, with zeros around x."""
    channels_last = geometry.data_format == "NHWC"
    if channels_last:
        x, kernel = channels_first(ops, x, kernel)
    inner = geometry._replace(data_format="NCHW", padding_mode="zeros")
    y = taps(ops, with_border(ops, x, inner), kernel, inner)
    return ops.transpose(y, (0, 2, 3, 1)) if channels_last else y


def taps(ops: Operations[T], x: T, kernel: T, geometry: Geometry, subtract: Callable[[T, T, T], T] | None = None) -> T:
    """Cross-correlation by shifting, multiplying and adding, in the order (channel, kernel row, kernel column).

    It only adds and multiplies, so that it is exact in any integer dtype that holds the result.

    Args:
        ops: the backend's operations.
        x: (N, C, H, W), padded already.
        kernel: (O, C/groups, h, w).
        geometry: NCHW; its padding is ignored.
        subtract: computes total - a * b from (total, a, b); by default the backend's own.

    Returns:
        (N, O, H', W').
    """
    subtract = subtract or ops.subtract_product
    n, _, height, width = ops.sizes(x)
    outputs, per_group, h, w = ops.sizes(kernel)
    groups, (sh, sw), (dh, dw) = geometry.groups, geometry.stride, geometry.dilation
    rows, columns = geometry._replace(padding=NO_PADDING).output_size((height, width))
    x = ops.reshape(x, (n, groups, per_group, height, width))
    # TensorFlow regroups chains of additions, but not of subtractions.
    weights = -ops.reshape(kernel, (groups, outputs // groups, per_group * h, w))

    def add(total: T, channel: Any, p: Any, count: int) -> T:
        """Add `count` rows of the kernel from row p on; they share one slice, which a compiler fuses."""
        image = ops.part(ops.part(x, channel, 1, 2), p * dh, (rows - 1) * sh + 1 + (count - 1) * dh, 3)
        lines = ops.part(weights, channel * h + p, count, 2)
        for line, q in itertools.product(range(count), range(w)):
            window = image[:, :, :, line * dh : line * dh + (rows - 1) * sh + 1 : sh, :]
            window = window[:, :, :, :, q * dw : q * dw + (columns - 1) * sw + 1 : sw]
            weight = ops.reshape(lines[:, :, line, q], (1, groups, outputs // groups, 1, 1))
            total = subtract(total, window, weight)
        return total

    def add_channels(total: T, first: Any, count: int) -> T:
        for channel in range(count):
            total = add(total, first + channel, 0, h)
        return total

    def add_channel(total: T, channel: Any) -> T:
        lines = min(max(1, _FEWEST // w), h)
        steps, rest = divmod(h, lines)
        total = ops.fold(lambda total, index: add(total, channel, index * lines, lines), total, steps)
        return add(total, channel, h - rest, rest) if rest else total

    total = ops.zeros((n, groups, outputs // groups, rows, columns), x)
    at_once = min(_FUSED // (h * w), per_group)
    if not at_once:
        # The kernel is large: only some of its rows are computed at a time.
        total = ops.fold(add_channel, total, per_group) if per_group > 1 else add_channel(total, 0)
        return ops.reshape(total, (n, outputs, rows, columns))
    steps, rest = divmod(per_group, at_once)
    if steps > 1:
        total = ops.fold(lambda total, index: add_channels(total, index * at_once, at_once), total, steps)
    else:
        total = add_channels(total, 0, at_once)
    total = add_channels(total, per_group - rest, rest)
    return ops.reshape(total, (n, outputs, rows, columns))
