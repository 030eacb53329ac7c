"""The algorithms that run on every backend, written once over the contract's operations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from .contract import Operations
from .geometry import NO_PADDING, Geometry, Pair

# Neighbouring outputs that `phase` computes as channels: rows and columns.
PHASES = (4, 4)

# So many products a compiler gets at once, to fuse them; a loop does the rest. More would take it seconds.
_FUSED = 64
# And of a large kernel about so many: with fewer, XLA's loops compute one number at a time.
_FEWEST = 30


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


def too_long(size: Sequence[int | None], geometry: Geometry) -> bool:
    """Whether Eigen's convolution, which JAX and TensorFlow run on CPUs, may leave results of an image of this size
    unwritten: it computes how many there are along an axis in float32, which is exact up to 2**24."""
    return any(type(n) is int and n + sum(pads) > 2**24 for n, pads in zip(size, geometry.padding, strict=True))


def by_taps(ops: Operations, x: Any, kernel: Any, geometry: Geometry) -> Any:
    """The framework's convolution, with zeros around x, by `taps` in either layout."""
    last = geometry.data_format == "NHWC"
    if last:
        x, kernel = ops.transpose(x, (0, 3, 1, 2)), ops.transpose(kernel, (3, 2, 0, 1))
    inner = geometry._replace(data_format="NCHW", padding_mode="zeros")
    y = taps(ops, extend(ops, x, inner), kernel, inner)
    return ops.transpose(y, (0, 2, 3, 1)) if last else y


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

    def add(total: Any, channel: Any, p: Any, count: int) -> Any:
        """`count` rows of the kernel from row p on; one slice for all, which a compiler fuses with what follows."""
        image = ops.part(ops.part(x, channel, 1, 2), p * dh, (rows - 1) * sh + 1 + (count - 1) * dh, 3)
        lines = ops.part(weights, channel * h + p, count, 2)
        for line, q in itertools.product(range(count), range(w)):
            window = image[:, :, :, line * dh : line * dh + (rows - 1) * sh + 1 : sh, :]
            window = window[:, :, :, :, q * dw : q * dw + (columns - 1) * sw + 1 : sw]
            weight = ops.reshape(lines[:, :, line, q], (1, groups, outputs // groups, 1, 1))
            total = subtract(total, window, weight)
        return total

    def add_channels(total: Any, first: Any, count: int) -> Any:
        for channel in range(count):
            total = add(total, first + channel, 0, h)
        return total

    def add_channel(total: Any, channel: Any) -> Any:
        lines = min(max(1, _FEWEST // w), h)
        steps, rest = divmod(h, lines)
        total = ops.fold(lambda total, index: add(total, channel, index * lines, lines), total, steps)
        return add(total, channel, h - rest, rest) if rest else total

    total = ops.zeros((n, groups, outputs // groups, rows, columns), x)
    at_once = min(_FUSED // (h * w), per_group)
    if not at_once:  # a large kernel: some of its rows at a time
        return ops.reshape(
            ops.fold(add_channel, total, per_group) if per_group > 1 else add_channel(total, 0),
            (n, outputs, rows, columns),
        )
    steps, rest = divmod(per_group, at_once)
    if steps > 1:
        total = ops.fold(lambda total, index: add_channels(total, index * at_once, at_once), total, steps)
    else:
        total = add_channels(total, 0, at_once)
    total = add_channels(total, per_group - rest, rest)
    return ops.reshape(total, (n, outputs, rows, columns))


def matmul(ops: Operations, x: Any, kernel: Any, geometry: Geometry) -> Any:
    """Cross-correlation as one product of matrices: the kernel's rows by the image's windows (im2col)."""
    n, _, height, width = ops.sizes(x)
    outputs, per_group, h, w = ops.sizes(kernel)
    groups = geometry.groups
    x, (rows, columns) = extend(ops, x, geometry), geometry.output_size((height, width))
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    x = ops.stack([x[:, :, p * dh : p * dh + (rows - 1) * sh + 1 : sh] for p in range(h)], 2)
    patches = ops.stack([x[..., q * dw : q * dw + (columns - 1) * sw + 1 : sw] for q in range(w)], 3)
    patches = ops.reshape(patches, (n, groups, per_group * h * w, rows * columns))
    weights = ops.reshape(kernel, (1, groups, outputs // groups, per_group * h * w))
    return ops.reshape(ops.matmul(weights, patches), (n, outputs, rows, columns))


def matmul_kernel_gradient(ops: Operations, x: Any, dy: Any, geometry: Geometry) -> Any:
    """The gradient of K: for each row of the kernel, dY times the windows that this row meets."""
    n, outputs, rows, columns = ops.sizes(dy)
    groups, (h, w) = geometry.groups, geometry.kernel_size
    x = extend(ops, x, geometry)
    per_group = ops.sizes(x)[1] // groups
    seeds = ops.reshape(ops.transpose(dy, (1, 0, 2, 3)), (groups, outputs // groups, n * rows * columns))
    found = []
    for p in range(h):
        patches = ops.stack([_window(x, geometry, p, q, (rows, columns)) for q in range(w)], 4)  # (N, C, H', W', w)
        patches = ops.transpose(patches, (0, 2, 3, 1, 4))
        patches = ops.transpose(ops.reshape(patches, (n * rows * columns, groups, per_group * w)), (1, 0, 2))
        found.append(ops.reshape(ops.matmul(seeds, patches), (outputs, per_group, w)))
    return ops.stack(found, 2)


def _window(x: Any, geometry: Geometry, p: int, q: int, size: Pair) -> Any:
    """The pixels that the kernel's element (p, q) meets."""
    (rows, columns), (sh, sw), (dh, dw) = size, geometry.stride, geometry.dilation
    top, left = p * dh, q * dw
    return x[:, :, top : top + (rows - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw]


def phase(ops: Operations, x: Any, kernel: Any, geometry: Geometry) -> Any:
    """One-channel images: neighbouring outputs as channels of a native convolution with stride, which gives those
    libraries that compute many channels at once something to do.

    Output (i * 4 + a, j * 4 + b) is channel 4 a + b at (i, j); its kernel is K moved down by a and right by b, zeros
    around it.
    """
    (down, right), (h, w) = PHASES, geometry.kernel_size
    n, _, height, width = ops.sizes(x)
    rows, columns = geometry.output_size((height, width))
    blocks = -(-rows // down), -(-columns // right)
    x = extend(ops, x, geometry)
    lacking = [b * t - size for b, t, size in zip(blocks, PHASES, (rows, columns), strict=True)]
    x = ops.pad(x, ((0, 0), (0, 0), (0, lacking[0]), (0, lacking[1])))
    moved = [
        ops.pad(kernel, ((0, 0), (0, 0), (a, down - 1 - a), (b, right - 1 - b)))[0, ...]
        for a in range(down)
        for b in range(right)
    ]
    size = h + down - 1, w + right - 1
    y = ops.conv(x, ops.stack(moved, 0), Geometry(size, stride=PHASES))
    y = ops.reshape(y, (n, down, right, *blocks))
    y = ops.reshape(ops.transpose(y, (0, 3, 1, 4, 2)), (n, 1, blocks[0] * down, blocks[1] * right))
    return y[:, :, :rows, :columns]
