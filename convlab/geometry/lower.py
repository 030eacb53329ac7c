"""Options fitted to an image's size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from ..errors import GeometryError, ShapeError
from .checks import integer
from .geometry import LONGEST, Geometry, Padding, PaddingName, Pair
from .options import channels_follow, check_shapes, kernel_size, options


def lower(geometry: Geometry, padding_name: PaddingName | Literal[""], size: Sequence[int | None]) -> Geometry:
    """Fit checked options to an image of `size` (None: not known while tracing).

    Named paddings become integers here, once for all backends: "same" pads to an output of `ceil(n / stride)`, the odd
    pixel at the end (TensorFlow's and XLA's SAME); "same_lower" puts the odd pixel at the start (ONNX's SAME_LOWER);
    "full" lets the kernel overhang by all but one of its rows and columns.

    A stride that leaves the image at its first step is cut to the least that does so, and the dilation of a single row
    or column is set to 1, so that no framework sees how large they were.
    """
    if padding_name:
        rows, columns = (
            _named_pads(padding_name, *axis) for axis in zip(size, geometry.extent, geometry.stride, strict=True)
        )
        geometry = geometry._replace(padding=(rows, columns))
    _check_fit(geometry, size)
    return _without_excess(geometry, size)


def _without_excess(geometry: Geometry, size: Sequence[int | None]) -> Geometry:
    """The geometry with strides and dilations no larger than they need to be."""
    down, right = (
        min(stride, LONGEST if type(n) is not int else n + pads[0] + pads[1] - extent + 1) if stride > 1 else 1
        for n, pads, extent, stride in zip(size, geometry.padding, geometry.extent, geometry.stride, strict=True)
    )
    (h, w), (dh, dw) = geometry.kernel_size, geometry.dilation
    plain = geometry._replace(stride=(down, right), dilation=(1 if h == 1 else dh, 1 if w == 1 else dw))
    return geometry if plain == geometry else plain


def _named_pads(padding_name: PaddingName | Literal[""], n: int | None, extent: int, stride: int) -> Pair:
    """The pixels before and after an axis of n pixels that a padding's name stands for."""
    if padding_name == "valid":
        return 0, 0
    if padding_name == "full":
        return extent - 1, extent - 1
    if stride == 1:
        total = extent - 1
    elif n is None:
        raise GeometryError(
            f"padding: got {padding_name!r} with stride {stride} on an image of unknown size.",
            hint="while tracing, give the image's height and width, or the padding as integers.",
        )
    else:
        total = max((-(-n // stride) - 1) * stride + extent - n, 0)
    small = total // 2
    return (small, total - small) if padding_name == "same" else (total - small, small)


def _check_fit(geometry: Geometry, size: Sequence[int | None]) -> None:
    """Raise `ShapeError` unless the kernel fits into the padded image."""
    for axis, n, pads, extent in zip(("height", "width"), size, geometry.padding, geometry.extent, strict=True):
        if n is None:
            continue
        if n + pads[0] + pads[1] < extent:
            raise ShapeError(
                f"K: got a kernel of {axis} {extent} (dilation counted) on an image of {axis} {n} padded "
                f"to {n + pads[0] + pads[1]}, expected a kernel no larger than the padded image.",
                hint=_fit_hint(geometry, size),
            )
        if geometry.padding_mode != "zeros" and n == 0 and any(pads):
            raise ShapeError(
                f"X: got {axis} 0 with padding_mode={geometry.padding_mode!r}, expected pixels to repeat.",
                hint="padding_mode='zeros' works on an empty image.",
            )


def _fit_hint(geometry: Geometry, size: Sequence[int | None]) -> str:
    """What a caller may do whose kernel is larger than the image; X and K may be swapped if it is so on both axes."""
    if all(type(n) is int and n < extent for n, extent in zip(size, geometry.extent, strict=True)):
        return "use a smaller kernel, or padding='same'; corr2d(X, K) takes the image first."
    return "use a smaller kernel or dilation, or padding='same'."


def output_shape(
    input_shape: Sequence[int],
    kernel_shape: Sequence[int],
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    padding_value: float = 0.0,
    origin: int | Pair | None = None,
    dilation: int | Pair = 1,
    groups: int = 1,
    data_format: str | None = None,
) -> tuple[int, ...]:
    """The shape of `corr2d(X, K, ...)` for X of `input_shape` and K of `kernel_shape`.

    It is computed in Python's integers, of any size, whether or not there is a machine for such arrays.

    >>> output_shape((6, 8), (1, 2))
    (6, 7)
    >>> output_shape((8, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3)
    (8, 64, 112, 112)

    Raises:
        ShapeError: ranks or sizes that don't fit together.
        GeometryError: an option that makes no sense.
    """
    shape, kernel = _sizes("input_shape", input_shape), _sizes("kernel_shape", kernel_shape)
    checked_size = kernel_size(kernel, data_format)
    geometry, padding_name = options(
        checked_size, stride, padding, padding_mode, dilation, groups, data_format, padding_value, origin
    )
    size = check_shapes(shape, kernel, geometry)
    rows, columns = lower(geometry, padding_name, size).output_size((size[0] or 0, size[1] or 0))
    if channels_follow(shape, kernel, geometry):
        return (*shape[:-3], rows, columns, shape[-1])
    if len(kernel) == 2:
        return (*shape[:-2], rows, columns)
    if geometry.data_format == "NCHW":
        return (*shape[:-3], kernel[0], rows, columns)
    return (*shape[:-3], rows, columns, kernel[3])


def _sizes(name: str, shape: object) -> tuple[int, ...]:
    """A shape's sizes, or a `ShapeError` for what is no shape."""
    if not isinstance(shape, Iterable) or isinstance(shape, str):
        raise ShapeError(f"{name}: got {shape!r}, expected sizes such as (6, 8).", hint="K.shape and X.shape are such.")
    return tuple(integer(name, size, 0) for size in shape)
