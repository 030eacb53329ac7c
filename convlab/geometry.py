"""Where a kernel meets an image: sizes, strides, paddings, dilations, and the checks on all of them.

Arithmetic with sizes alone (`output_shape`, `receptive_field`) has no limits; what is computed has (`convlab.limits`).
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from .errors import GeometryError, ShapeError

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Padding = int | Pair | Pads | Literal["valid", "same", "same_lower", "full"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
DataFormat = Literal["NCHW", "NHWC"]

PADDING_NAMES = ("valid", "same", "same_lower", "full")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
DATA_FORMATS = ("NCHW", "NHWC")
NO_PADDING: Pads = ((0, 0), (0, 0))

LONGEST = 2**31 - 1  # the longest axis of what is computed: MXNet's sizes and oneDNN's strides are int32
MOST_BITS = 1023  # of any integer, which can so be printed and be made a float


class Geometry(NamedTuple):
    """A correlation's geometry, lowered to integers: all that an algorithm needs beside X and K."""

    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Pads = NO_PADDING
    padding_mode: str = "zeros"
    dilation: Pair = (1, 1)
    groups: int = 1
    data_format: str = "NCHW"

    @property
    def extent(self) -> Pair:
        """Rows and columns that the dilated kernel spans."""
        (h, w), (dh, dw) = self.kernel_size, self.dilation
        return (h - 1) * dh + 1, (w - 1) * dw + 1

    def output_size(self, size: Pair) -> Pair:
        """Rows and columns of the result for an image of `size`."""
        rows, columns = (
            (n + lo + hi - extent) // stride + 1
            for n, (lo, hi), extent, stride in zip(size, self.padding, self.extent, self.stride, strict=True)
        )
        return rows, columns

    def swapped(self) -> Geometry:
        """That of the image and the kernel with rows and columns swapped."""
        pairs = {name: getattr(self, name)[::-1] for name in ("kernel_size", "stride", "padding", "dilation")}
        return self._replace(**pairs)


def integer(name: str, value: Any, minimum: int) -> int:
    """`value` as an int of at least `minimum`, or a `GeometryError` that names the argument."""
    if type(value) is int and LONGEST >= value >= minimum:  # the common case, at a tenth of the cost
        return value
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < minimum or number.bit_length() > MOST_BITS:
        kind = "a positive int" if minimum else "an int of at least 0"
        most = "" if number is None or number < minimum else f" of at most {MOST_BITS} bits"
        raise GeometryError(
            f"{name}: got {shown(value)}, expected {kind}{most}.",
            hint=f"{name}={max(minimum, 0)} is the least that works.",
        )
    return number


def real(value: Any) -> float:
    """A real number as a float; nan for anything else, also for what is too large for one.

    >>> real(3), real(10**400), real("3"), real(True)
    (3.0, nan, nan, nan)
    """
    try:
        return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def shown(value: Any) -> str:
    """A value in an error message, in at most some 200 characters.

    >>> shown(2.5), shown(10**5000)
    ('2.5', 'an integer of 16610 bits')
    """
    if type(value) is int and value.bit_length() > MOST_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (list, tuple)) and len(value) > 20:
        return f"a {type(value).__name__} of {len(value)}"
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return f"a {type(value).__name__} of long integers"
    return text if len(text) <= 200 else f"{text[:200]}..."


def pair(name: str, value: Any, minimum: int) -> Pair:
    """An int, or a (rows, columns) pair of them, as a pair.

    >>> pair("stride", 2, 1), pair("stride", (1, 3), 1)
    ((2, 2), (1, 3))
    """
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise GeometryError(
                f"{name}: got {shown(value)}, expected an int or a pair of ints.",
                hint="give (rows, columns).",
            )
        return integer(name, value[0], minimum), integer(name, value[1], minimum)
    number = integer(name, value, minimum)
    return number, number


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """`value` if it is one of `allowed`, or a `GeometryError` that lists them."""
    if not isinstance(value, str) or value not in allowed:
        lower_case = isinstance(value, str) and value.lower() in allowed
        hint = "names are in lower case." if lower_case else f"{name}={allowed[0]!r} is the plainest."
        raise GeometryError(f"{name}: got {shown(value)}, expected one of {', '.join(allowed)}.", hint=hint)
    return value


def boolean(name: str, value: Any) -> bool:
    """`value` if it is True or False, or a `GeometryError` that names the argument."""
    if value is not True and value is not False:
        raise GeometryError(f"{name}: got {shown(value)}, expected True or False.", hint=f"{name}=True asks for it.")
    return value


def options(
    kernel_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    padding_mode: Any = "zeros",
    dilation: Any = 1,
    groups: Any = 1,
    data_format: Any = "NCHW",
) -> tuple[Geometry, str]:
    """Check everything that needs no image. The second value is the padding's name, "" for integers."""
    named = choice("padding", padding, PADDING_NAMES) if isinstance(padding, str) else ""
    geometry = Geometry(
        pair("kernel_size", kernel_size, 1),
        pair("stride", stride, 1),
        NO_PADDING if named else _explicit(padding),
        choice("padding_mode", padding_mode, PADDING_MODES),
        pair("dilation", dilation, 1),
        integer("groups", groups, 1),
        choice("data_format", data_format, DATA_FORMATS),
    )
    return geometry, named


def lower(geometry: Geometry, named: str, size: Sequence[int | None]) -> Geometry:
    """Fit checked options to an image of `size` (None: not known while tracing).

    Named paddings become integers here, once for all backends:
    "same" pads to an output of `ceil(n / stride)`, the odd one at the end (TensorFlow's and XLA's SAME);
    "same_lower" puts it at the start (ONNX's SAME_LOWER); "full" lets the kernel overhang by all but one.
    A stride beyond the last place is that to just beyond it, and the dilation of one row or column is 1: no framework
    sees how large they were.
    """
    if named:
        rows, columns = (_named_pads(named, *each) for each in zip(size, geometry.extent, geometry.stride, strict=True))
        geometry = geometry._replace(padding=(rows, columns))
    _check_fit(geometry, size)
    return _plain(geometry, size)


def _plain(geometry: Geometry, size: Sequence[int | None]) -> Geometry:
    down, right = (
        min(stride, LONGEST if type(n) is not int else n + pads[0] + pads[1] - extent + 1) if stride > 1 else 1
        for n, pads, extent, stride in zip(size, geometry.padding, geometry.extent, geometry.stride, strict=True)
    )
    (h, w), (dh, dw) = geometry.kernel_size, geometry.dilation
    plain = geometry._replace(stride=(down, right), dilation=(1 if h == 1 else dh, 1 if w == 1 else dw))
    return geometry if plain == geometry else plain


def _explicit(padding: Any) -> Pads:
    if type(padding) is int and padding == 0:
        return NO_PADDING
    nested = (
        isinstance(padding, (tuple, list))
        and len(padding) == 2
        and any(isinstance(side, (tuple, list)) for side in padding)
    )
    if nested:
        return pair("padding", padding[0], 0), pair("padding", padding[1], 0)
    rows, columns = pair("padding", padding, 0)
    return (rows, rows), (columns, columns)


def _named_pads(named: str, n: int | None, extent: int, stride: int) -> Pair:
    if named == "valid":
        return 0, 0
    if named == "full":
        return extent - 1, extent - 1
    if stride == 1:
        total = extent - 1
    elif n is None:
        raise GeometryError(
            f"padding: got {named!r} with stride {stride} on an image of unknown size.",
            hint="while tracing, give the image's height and width, or the padding as integers.",
        )
    else:
        total = max((-(-n // stride) - 1) * stride + extent - n, 0)
    small = total // 2
    return (small, total - small) if named == "same" else (total - small, small)


def _check_fit(geometry: Geometry, size: Sequence[int | None]) -> None:
    for axis, n, pads, extent in zip(("height", "width"), size, geometry.padding, geometry.extent, strict=True):
        if n is None:
            continue
        if n + pads[0] + pads[1] < extent:
            raise ShapeError(
                f"K: got a kernel of {axis} {extent} (dilation counted) on an image of {axis} {n} padded "
                f"to {n + pads[0] + pads[1]}, expected a kernel no larger than the padded image.",
                hint="use a smaller kernel or dilation, or padding='same'.",
            )
        if geometry.padding_mode != "zeros" and n == 0 and any(pads):
            raise ShapeError(
                f"X: got {axis} 0 with padding_mode={geometry.padding_mode!r}, expected pixels to repeat.",
                hint="padding_mode='zeros' works on an empty image.",
            )


class IdleStrides(NamedTuple):
    """See `idle_strides`."""

    size: Pair
    stride: Pair


def idle_strides(geometry: Geometry, size: Pair) -> IdleStrides | None:
    """Where an axis has a single output, its stride does nothing: the part of the padded image that is used, and the
    strides with those set to 1. None if there is no such stride.

    oneDNN, under PyTorch and TensorFlow, returns garbage for one channel, one output column and a stride (1, s).
    """
    if geometry.stride == (1, 1):
        return None
    outputs = geometry.output_size(size)
    if not any(n == 1 and s > 1 for n, s in zip(outputs, geometry.stride, strict=True)):
        return None
    rows, columns = ((n - 1) * s + e for n, s, e in zip(outputs, geometry.stride, geometry.extent, strict=True))
    down, right = (1 if n == 1 else s for n, s in zip(outputs, geometry.stride, strict=True))
    return IdleStrides((rows, columns), (down, right))


def output_shape(
    input_shape: Sequence[int],
    kernel_shape: Sequence[int],
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    padding_mode: PaddingMode = "zeros",
    dilation: int | Pair = 1,
    groups: int = 1,
    data_format: DataFormat = "NCHW",
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
    shape = tuple(integer("input_shape", n, 0) for n in input_shape)
    kernel = tuple(integer("kernel_shape", n, 0) for n in kernel_shape)
    geometry, named = options(
        kernel_size(kernel, data_format), stride, padding, padding_mode, dilation, groups, data_format
    )
    size = check_shapes(shape, kernel, geometry)
    rows, columns = lower(geometry, named, size).output_size((size[0] or 0, size[1] or 0))
    if len(kernel) == 2:
        return (*shape[:-2], rows, columns)
    if data_format == "NCHW":
        return (*shape[:-3], kernel[0], rows, columns)
    return (*shape[:-3], rows, columns, kernel[3])


def kernel_size(kernel_shape: Sequence[int | None], data_format: Any = "NCHW") -> Pair:
    """Rows and columns of a kernel of rank 2, or of rank 4 in OIHW (NCHW) or HWIO (NHWC) order.

    >>> kernel_size((3, 5)), kernel_size((64, 3, 7, 5)), kernel_size((7, 5, 3, 64), "NHWC")
    ((3, 5), (7, 5), (7, 5))
    """
    choice("data_format", data_format, DATA_FORMATS)
    if len(kernel_shape) not in (2, 4):
        raise ShapeError(
            f"K: got shape {tuple(kernel_shape)} of rank {len(kernel_shape)}, expected rank 2 (h, w) or rank 4 "
            "(OIHW, or HWIO with data_format='NHWC').",
            hint="K[None, None] makes one output and one input channel of a rank-2 kernel.",
        )
    last = len(kernel_shape) == 2 or data_format == "NCHW"
    h, w = kernel_shape[-2:] if last else kernel_shape[:2]
    if 0 in kernel_shape or h is None or w is None:
        raise ShapeError(
            f"K: got shape {tuple(kernel_shape)}, expected no size of 0.",
            hint="a kernel has at least one row, one column and one channel.",
        )
    return h, w


def check_shapes(
    shape: Sequence[int | None], kernel: Sequence[int | None], geometry: Geometry
) -> tuple[int | None, int | None]:
    """Check X's shape and the channels against K's; returns the image's (height, width)."""
    if len(kernel) == 2:
        if len(shape) < 2:
            raise ShapeError(
                f"X: got shape {tuple(shape)}, expected (..., H, W) for a rank-2 kernel.",
                hint="X[None] makes a one-row image of a vector.",
            )
        if geometry.groups != 1:
            raise GeometryError(
                f"groups: got {geometry.groups}, expected 1 for a rank-2 kernel.",
                hint="give K as OIHW to convolve channels in groups.",
            )
        return shape[-2], shape[-1]
    first = geometry.data_format == "NCHW"
    if len(shape) not in (3, 4):
        layout = "(C, H, W) or (N, C, H, W)" if first else "(H, W, C) or (N, H, W, C)"
        raise ShapeError(
            f"X: got shape {tuple(shape)} of rank {len(shape)}, expected {layout} for a rank-4 kernel.",
            hint="a rank-2 kernel takes any leading axes.",
        )
    channels = shape[-3] if first else shape[-1]
    per_group, outputs = (kernel[1], kernel[0]) if first else (kernel[2], kernel[3])
    _check_channels(channels, per_group, outputs, geometry)
    return (shape[-2], shape[-1]) if first else (shape[-3], shape[-2])


def _check_channels(channels: int | None, per_group: int | None, outputs: int | None, geometry: Geometry) -> None:
    groups = geometry.groups
    if channels is not None and per_group is not None and channels != per_group * groups:
        order = "OIHW" if geometry.data_format == "NCHW" else "HWIO"
        raise ShapeError(
            f"X: got {channels} channels, expected {per_group * groups}: K ({order}) has {per_group} input "
            f"channels in each of {groups} group(s).",
            hint="check data_format and groups.",
        )
    if outputs is not None and outputs % groups:
        raise GeometryError(
            f"groups: got {groups}, expected a divisor of K's {outputs} output channels.",
            hint="each group makes the same number of output channels.",
        )
