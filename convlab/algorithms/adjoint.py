"""The gradient of the image: another correlation, of dY with the kernel flipped."""

from __future__ import annotations

from collections.abc import Callable

from ..contract.arrays import T
from ..contract.operations import Operations
from ..geometry.geometry import Geometry, Pair, border_index
from .border import channels_first


def image_gradient(
    ops: Operations[T], dy: T, k: T, geometry: Geometry, size: Pair, correlate: Callable[[T, T, Geometry], T]
) -> T:
    """The gradient of X (N, C, *size) from dY (N, O, H', W') and K (O, C/groups, h, w), computed by `correlate`.

    With a stride, each phase of the image has its own part of the kernel.
    """
    dx = correlate(dy, transposed(ops, k, geometry), adjoint(geometry, size))
    (sh, sw), (n, channels, down, right) = geometry.stride, ops.sizes(dx)
    if geometry.stride != (1, 1):
        inputs = channels // (sh * sw)
        dx = ops.transpose(ops.reshape(dx, (n * inputs, sh, sw, down, right)), (0, 3, 1, 4, 2))
        height, width = (n + sum(pads) for n, pads in zip(size, geometry.padding, strict=True))
        dx = ops.reshape(dx, (n, inputs, down * sh, right * sw))[:, :, :height, :width]
    return dx if _cropped(geometry) else _undo_border(ops, dx, geometry, size)


def transposed_correlation(
    ops: Operations[T],
    y: T,
    k: T,
    geometry: Geometry,
    output_padding: Pair,
    correlate: Callable[[T, T, Geometry], T],
) -> T:
    """The result of `conv_transpose2d` for NCHW and OIHW, or NHWC and HWIO, computed by `correlate` on NCHW."""
    channels_last = geometry.data_format == "NHWC"
    if channels_last:
        y, k = channels_first(ops, y, k)
        geometry = geometry._replace(data_format="NCHW")
    _, _, height, width = ops.sizes(y)
    x = image_gradient(ops, y, k, geometry, geometry.transposed_size((height, width), output_padding), correlate)
    return ops.transpose(x, (0, 2, 3, 1)) if channels_last else x


def transposed(ops: Operations[T], k: T, geometry: Geometry) -> T:
    """K as the kernel (C * phases, O/groups, …) that takes dY to the gradient of X."""
    outputs, per_group, h, w = ops.sizes(k)
    groups = geometry.groups
    if groups == 1:
        k = ops.transpose(k, (1, 0, 2, 3))
    elif per_group > 1 or outputs > groups:
        k = ops.reshape(k, (groups, outputs // groups, per_group, h, w))
        k = ops.reshape(ops.transpose(k, (0, 2, 1, 3, 4)), (groups * per_group, outputs // groups, h, w))
    if geometry.stride != (1, 1):
        k = _phases(ops, k, geometry)
    return ops.flip(k, (2, 3))


def adjoint(geometry: Geometry, size: Pair) -> Geometry:
    """The geometry of the correlation that takes dY to the gradient of X, of `size` rows and columns."""
    strided = geometry.stride != (1, 1)
    pads = []
    for n, (before, after), outputs, extent, stride in zip(
        size, geometry.padding, geometry.output_size(size), geometry.extent, geometry.stride, strict=True
    ):
        if _cropped(geometry):
            pads.append((extent - 1 - before, n + before - outputs))
        else:
            pads.append((-(-extent // stride) - 1, -(-(n + before + after) // stride) - outputs))
    rows, columns = (-(-extent // stride) for extent, stride in zip(geometry.extent, geometry.stride, strict=True))
    return Geometry(
        (rows, columns) if strided else geometry.kernel_size,
        padding=(pads[0], pads[1]),
        dilation=(1, 1) if strided else geometry.dilation,
        groups=geometry.groups,
    )


def _cropped(geometry: Geometry) -> bool:
    """Whether the gradient of the padding needn't be computed at all."""
    inside = all(max(pads) < extent for pads, extent in zip(geometry.padding, geometry.extent, strict=True))
    return inside and geometry.padding_mode == "zeros" and geometry.stride == (1, 1)


def _phases(ops: Operations[T], k: T, geometry: Geometry) -> T:
    """(C, O, h, w) as (C * sh * sw, O, R, S): the kernel's part for each phase, the image's rows i = phase (mod sh).

    With the dilation's zeros written out, the kernel's row t belongs to phase t % sh and is row t // sh there.
    """
    channels, outputs, *_ = ops.sizes(k)
    # The last row and the last column are zeros to take where the kernel has no element.
    k = ops.pad(k, ((0, 0), (0, 0), (0, 1), (0, 1)))
    length = []
    for axis, (size, extent, stride, dilation) in enumerate(
        zip(geometry.kernel_size, geometry.extent, geometry.stride, geometry.dilation, strict=True), start=2
    ):
        length.append(-(-extent // stride))
        places = range(length[-1] * stride)
        k = ops.take(k, [t // dilation if t % dilation == 0 and t < extent else size for t in places], axis)
    (r, s), (sh, sw) = length, geometry.stride
    k = ops.transpose(ops.reshape(k, (channels, outputs, r, sh, s * sw)), (0, 3, 1, 2, 4))
    k = ops.transpose(ops.reshape(k, (channels * sh, outputs, r, s, sw)), (0, 4, 1, 2, 3))
    return ops.reshape(k, (channels * sh * sw, outputs, r, s))


def _undo_border(ops: Operations[T], dx: T, geometry: Geometry, size: Pair) -> T:
    """The gradient of X from that of the padded X: positions that hold one pixel are added up in their order."""
    mode = geometry.padding_mode
    for axis, (n, (before, after)) in enumerate(zip(size, geometry.padding, strict=True), start=2):
        if mode == "zeros":
            dx = ops.part(dx, before, n, axis)
        elif before or after:
            places: list[list[int]] = [[] for _ in range(n)]
            for position in range(n + before + after):
                places[border_index(position - before, n, mode)].append(position)
            zero = n + before + after  # the index of a zero beyond the last position
            widths = [(0, 0)] * 4
            widths[axis] = (0, 1)
            terms, total = ops.pad(-dx, widths), None
            for turn in range(max(map(len, places))):
                index = [place[turn] if turn < len(place) else zero for place in places]
                term = ops.take(terms, index, axis)
                total = -term if total is None else total - term
            assert total is not None
            dx = total
    return dx
