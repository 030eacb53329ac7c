"""Checks on the options of a correlation, and on the shapes of its image and kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypedDict

from ..errors import GeometryError, ShapeError
from . import names
from .checks import integer, pair, real, shown, whole_number
from .geometry import NO_PADDING, Geometry, Padding, PaddingName, Pads, Pair, placed

# The options of a correlation beside X and K that a checked geometry keeps, in the order of `options`' parameters.
GEOMETRY_OPTIONS = ("stride", "padding", "padding_mode", "dilation", "groups", "data_format", "padding_value")


class GeometryOptions(TypedDict, total=False):
    """The keyword arguments that say where the kernel meets the image, and their types."""

    stride: int | Pair
    padding: Padding
    padding_mode: str
    dilation: int | Pair
    groups: int
    data_format: str | None
    padding_value: float
    origin: int | Pair | None


def options(
    kernel_size: object,
    stride: object = 1,
    padding: object = 0,
    padding_mode: object = "zeros",
    dilation: object = 1,
    groups: object = 1,
    data_format: object = "NCHW",
    padding_value: object = 0.0,
    origin: object = None,
) -> tuple[Geometry, PaddingName | Literal[""]]:
    """The checked options, as far as no image is needed for the check, and the padding's name, "" for integers."""
    padding_name = names.padding_name(padding) if isinstance(padding, str) else ""
    geometry = Geometry(
        pair("kernel_size", kernel_size, 1),
        pair("stride", stride, 1),
        NO_PADDING if padding_name else _explicit(padding),
        names.padding_mode(padding_mode),
        pair("dilation", dilation, 1),
        integer("groups", groups, 1),
        names.data_format(data_format),
        _padding_value(padding_value, padding_mode),
    )
    if origin is None:
        return geometry, padding_name
    return geometry._replace(padding=_placed(geometry, padding_name, origin)), ""


def _padding_value(padding_value: object, padding_mode: object) -> float:
    """The value of a constant border."""
    # The common case first.
    if padding_value == 0.0 and type(padding_value) in (int, float):
        return 0.0
    value = real(padding_value)
    if not math.isfinite(value) or value != padding_value:
        number = isinstance(padding_value, (int, float))
        raise GeometryError(
            f"padding_value: got {shown(padding_value)}, expected a finite number that float64 holds.",
            hint="with padding='valid' the result has no pixel that depends on a border."
            if number
            else "padding_value=0.5 is an example; an array's number is array.item().",
        )
    if names.padding_mode(padding_mode) != "zeros":
        raise GeometryError(
            f"padding_value: got {shown(padding_value)} with padding_mode={shown(padding_mode)}, expected "
            "padding_mode='constant'.",
            hint="only a constant border has a value.",
        )
    return value


def _placed(geometry: Geometry, padding_name: str, origin: object) -> Pads:
    """The padding of a result of ceil(n / stride) whose pixels lie under an element of the kernel."""
    if padding_name != "same":
        raise GeometryError(
            f"origin: got {shown(origin)} without padding='same', expected both.",
            hint="a padding in integers places the kernel by itself.",
        )
    offsets = origin if isinstance(origin, (tuple, list)) and len(origin) == 2 else (origin, origin)
    element = []
    for size, offset in zip(geometry.kernel_size, offsets, strict=True):
        centre, last = size // 2, size - 1
        offset = whole_number(offset)
        if offset is None or not 0 <= centre + offset <= last:
            raise GeometryError(
                f"origin: got {shown(origin)} for a kernel of {geometry.kernel_size}, expected integers, from "
                f"{-centre} to {last - centre} along this axis.",
                hint="origin=0 puts the kernel's centre, size // 2, on the pixel.",
            )
        element.append(centre + offset)
    return placed(geometry.kernel_size, geometry.dilation, (element[0], element[1]))


def flipped_origin(origin: object, size: Pair) -> object:
    """The origin of a kernel of a size once it is flipped on both axes; what is no origin stays as it is.

    >>> flipped_origin(0, (3, 4)), flipped_origin((1, -2), (3, 4))
    ((0, -1), (-1, 1))
    """
    offsets = origin if isinstance(origin, (tuple, list)) else (origin, origin)
    numbers = [whole_number(offset) for offset in offsets]
    if len(numbers) != 2 or any(
        number is None or not 0 <= n // 2 + number < n for n, number in zip(size, numbers, strict=False)
    ):
        return origin
    rows, columns = (n - 1 - 2 * (n // 2) - (number or 0) for n, number in zip(size, numbers, strict=True))
    return rows, columns


def _explicit(padding: object) -> Pads:
    """A padding in integers as ((top, bottom), (left, right))."""
    if type(padding) is int and padding == 0:
        return NO_PADDING
    sides: Sequence[object] = padding if isinstance(padding, (tuple, list)) and len(padding) == 2 else ()
    if any(isinstance(side, (tuple, list)) for side in sides):
        return pair("padding", sides[0], 0), pair("padding", sides[1], 0)
    rows, columns = pair("padding", padding, 0)
    return (rows, rows), (columns, columns)


_RANK_HINTS = {
    0: "[[K]] is a kernel of one row and one column.",
    1: "K[None], or [K] of a list, is a kernel of one row; K[:, None] is a column.",
    3: "K[None] makes it (1, C, h, w), a kernel with one output channel, if its channels come first.",
}


def kernel_size(kernel_shape: Sequence[int | None], data_format: object = None) -> Pair:
    """Rows and columns of a kernel of rank 2, or of rank 4 in OIHW (NCHW) or HWIO (NHWC) order.

    >>> kernel_size((3, 5)), kernel_size((64, 3, 7, 5)), kernel_size((7, 5, 3, 64), "NHWC")
    ((3, 5), (7, 5), (7, 5))
    """
    layout = names.data_format(data_format)
    if len(kernel_shape) not in (2, 4):
        raise ShapeError(
            f"K: got shape {tuple(kernel_shape)} of rank {len(kernel_shape)}, expected rank 2 (h, w) or rank 4 "
            "(OIHW, or HWIO with data_format='NHWC').",
            hint=_RANK_HINTS.get(len(kernel_shape), "a kernel of rank 2 is the usual one."),
        )
    size_is_last = len(kernel_shape) == 2 or layout == "NCHW"
    h, w = kernel_shape[-2:] if size_is_last else kernel_shape[:2]
    if 0 in kernel_shape or h is None or w is None:
        raise ShapeError(
            f"K: got shape {tuple(kernel_shape)}, expected no size of 0.",
            hint="a kernel has at least one row, one column and one channel.",
        )
    return h, w


def check_shapes(
    shape: Sequence[int | None], kernel: Sequence[int | None], geometry: Geometry, transposed: bool = False
) -> tuple[int | None, int | None]:
    """The image's (height, width), once X's shape and its channels are checked against K's.

    With `transposed` it is Y, which `conv_transpose2d` takes and whose channels are K's output channels.
    """
    name = "Y" if transposed else "X"
    if len(kernel) == 2:
        if len(shape) < 2:
            raise ShapeError(
                f"{name}: got shape {tuple(shape)}, expected (..., H, W) for a rank-2 kernel.",
                hint=f"{name}[None] makes a one-row image of a vector.",
            )
        if geometry.groups != 1:
            raise GeometryError(
                f"groups: got {geometry.groups}, expected 1 for a rank-2 kernel.",
                hint="give K as OIHW to convolve channels in groups.",
            )
        rows_axis = -3 if channels_follow(shape, kernel, geometry) else -2
        return shape[rows_axis], shape[rows_axis + 1]
    channels_first = geometry.data_format == "NCHW"
    if len(shape) not in (3, 4):
        layout = "(C, H, W) or (N, C, H, W)" if channels_first else "(H, W, C) or (N, H, W, C)"
        raise ShapeError(
            f"{name}: got shape {tuple(shape)} of rank {len(shape)}, expected {layout} for a rank-4 kernel.",
            hint="a rank-2 kernel takes any leading axes.",
        )
    channels = shape[-3] if channels_first else shape[-1]
    per_group, outputs = (kernel[1], kernel[0]) if channels_first else (kernel[2], kernel[3])
    if transposed:
        _check_transposed_channels(shape, channels, per_group, outputs, geometry)
    else:
        _check_channels(shape, channels, per_group, outputs, geometry)
    _check_groups(outputs, geometry.groups)
    return (shape[-2], shape[-1]) if channels_first else (shape[-3], shape[-2])


def channels_follow(shape: Sequence[int | None], kernel: Sequence[int | None], geometry: Geometry) -> bool:
    """Whether a kernel of rank 2 is to filter each channel of an image (..., H, W, C).

    An image of rank 2 has no channels, so that it is (H, W) in either layout.
    """
    return len(kernel) == 2 and geometry.data_format == "NHWC" and len(shape) > 2


def _check_channels(
    shape: Sequence[int | None],
    channels: int | None,
    per_group: int | None,
    outputs: int | None,
    geometry: Geometry,
) -> None:
    groups = geometry.groups
    if channels is not None and per_group is not None and channels != per_group * groups:
        first = geometry.data_format == "NCHW"
        order, other = ("OIHW", "NHWC") if first else ("HWIO", "NCHW")
        elsewhere = shape[-1 if first else -3] == per_group * groups
        raise ShapeError(
            f"X: got {channels} channels in {tuple(shape)} ({geometry.data_format}), expected "
            f"{per_group * groups}: K ({order}) has {per_group} input channels in each of {groups} group(s).",
            hint=f"data_format={other!r} takes images of this shape, and K as {'HWIO' if first else 'OIHW'}."
            if elsewhere
            else "check data_format, groups and the order of K's axes.",
        )


def _check_transposed_channels(
    shape: Sequence[int | None],
    channels: int | None,
    per_group: int | None,
    outputs: int | None,
    geometry: Geometry,
) -> None:
    if channels is not None and outputs is not None and channels != outputs:
        order = "OIHW" if geometry.data_format == "NCHW" else "HWIO"
        swapped = "K.transpose(1, 0, 2, 3)" if order == "OIHW" else "K.transpose(0, 1, 3, 2)"
        raise ShapeError(
            f"Y: got {channels} channels in {tuple(shape)} ({geometry.data_format}), expected {outputs}: K ({order}) "
            f"takes {outputs} channels to {(per_group or 1) * geometry.groups}.",
            hint=f"K is laid out as for corr2d: {swapped} swaps its channels."
            if channels == per_group
            else "check data_format and the order of K's axes, which is that of corr2d's K.",
        )


def _check_groups(outputs: int | None, groups: int) -> None:
    if outputs is not None and outputs % groups:
        raise GeometryError(
            f"groups: got {groups}, expected a divisor of K's {outputs} output channels.",
            hint="each group makes the same number of output channels.",
        )
