"""An image as the algorithms take it: channels first, with its border."""

from __future__ import annotations

from ..contract.arrays import T
from ..contract.operations import Operations
from ..geometry.geometry import NO_PADDING, Geometry, border_index


def with_border(ops: Operations[T], x: T, geometry: Geometry) -> T:
    """The image x (NCHW or NHWC) with the geometry's padding around it, in its padding mode."""
    rows_axis = 2 if geometry.data_format == "NCHW" else 1
    if geometry.padding_mode == "zeros":
        if geometry.padding == NO_PADDING:
            return x
        widths = [(0, 0)] * 4
        widths[rows_axis : rows_axis + 2] = geometry.padding
        return ops.pad(x, widths)
    shape = ops.shape(x) or (None,) * 4
    for axis, pads in enumerate(geometry.padding, start=rows_axis):
        if not any(pads):
            continue
        n, mode = shape[axis], geometry.padding_mode
        if n is None:
            x = ops.border(x, axis, pads, mode)
        else:
            x = ops.take(x, [border_index(i, n, mode) for i in range(-pads[0], n + pads[1])], axis)
    return x


def channels_first(ops: Operations[T], x: T, k: T) -> tuple[T, T]:
    """The tensors x (NHWC) and k (HWIO) as NCHW and OIHW."""
    return ops.transpose(x, (0, 3, 1, 2)), ops.transpose(k, (3, 2, 0, 1))
