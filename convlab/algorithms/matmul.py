"""Cross-correlation as a product of matrices."""

from __future__ import annotations

from ..contract.arrays import T
from ..contract.operations import Operations
from ..geometry.geometry import Geometry, Pair
from .border import with_border


def matmul(ops: Operations[T], x: T, kernel: T, geometry: Geometry) -> T:
    """Cross-correlation as one product of matrices: the kernel's rows times the image's windows (im2col)."""
    n, _, height, width = ops.sizes(x)
    outputs, per_group, h, w = ops.sizes(kernel)
    groups = geometry.groups
    x, (rows, columns) = with_border(ops, x, geometry), geometry.output_size((height, width))
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    x = ops.stack([x[:, :, p * dh : p * dh + (rows - 1) * sh + 1 : sh] for p in range(h)], 2)
    patches = ops.stack([x[..., q * dw : q * dw + (columns - 1) * sw + 1 : sw] for q in range(w)], 3)
    patches = ops.reshape(patches, (n, groups, per_group * h * w, rows * columns))
    weights = ops.reshape(kernel, (1, groups, outputs // groups, per_group * h * w))
    return ops.reshape(ops.matmul(weights, patches), (n, outputs, rows, columns))


def matmul_kernel_gradient(ops: Operations[T], x: T, dy: T, geometry: Geometry) -> T:
    """The gradient of K: for each row of the kernel, dY times the windows that this row meets."""
    n, outputs, rows, columns = ops.sizes(dy)
    groups, (h, w) = geometry.groups, geometry.kernel_size
    x = with_border(ops, x, geometry)
    per_group = ops.sizes(x)[1] // groups
    seeds = ops.reshape(ops.transpose(dy, (1, 0, 2, 3)), (groups, outputs // groups, n * rows * columns))
    kernel_rows = []
    for p in range(h):
        patches = ops.stack([_window(x, geometry, p, q, (rows, columns)) for q in range(w)], 4)  # (N, C, H', W', w)
        patches = ops.transpose(patches, (0, 2, 3, 1, 4))
        patches = ops.transpose(ops.reshape(patches, (n * rows * columns, groups, per_group * w)), (1, 0, 2))
        kernel_rows.append(ops.reshape(ops.matmul(seeds, patches), (outputs, per_group, w)))
    return ops.stack(kernel_rows, 2)


def _window(x: T, geometry: Geometry, p: int, q: int, size: Pair) -> T:
    """The pixels that the kernel's element (p, q) meets."""
    (rows, columns), (sh, sw), (dh, dw) = size, geometry.stride, geometry.dilation
    top, left = p * dh, q * dw
    return x[:, :, top : top + (rows - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw]
