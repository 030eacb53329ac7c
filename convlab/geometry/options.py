"""Checks on each option of a correlation."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Literal, TypedDict, TypeVar

from ..errors import GeometryError, ShapeError
from .geometry import (
    DATA_FORMATS,
    LONGEST,
    MOST_BITS,
    NO_PADDING,
    PADDING_MODES,
    PADDING_NAMES,
    DataFormat,
    Geometry,
    Padding,
    PaddingMode,
    PaddingName,
    Pads,
    Pair,
)

Name = TypeVar("Name", bound=str)

# The options of a correlation beside X and K, in the order of `options`' parameters after the kernel's size.
GEOMETRY_OPTIONS = ("stride", "padding", "padding_mode", "dilation", "groups", "data_format")


class GeometryOptions(TypedDict, total=False):
    """The keyword arguments that say where the kernel meets the image, and their types."""

    stride: int | Pair
    padding: Padding
    padding_mode: PaddingMode
    dilation: int | Pair
    groups: int
    data_format: DataFormat


def integer(name: str, value: object, minimum: int) -> int:
    """`value` as an int of at least `minimum`, or a `GeometryError` that names the argument."""
    # The common case first: it takes a tenth of the time.
    if type(value) is int and LONGEST >= value >= minimum:
        return value
    try:
        number = operator.index(value)  # type: ignore[arg-type]
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


def real(value: object) -> float:
    """A real number as a float; nan for anything else, also for what is too large for one.

    >>> real(3), real(10**400), real("3"), real(True)
    (3.0, nan, nan, nan)
    """
    try:
        return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def shown(value: object) -> str:
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
    except ValueError:
        # Python writes no integer of more than 4300 digits.
        return f"a {type(value).__name__} of long integers"
    return text if len(text) <= 200 else f"{text[:200]}..."


def pair(name: str, value: object, minimum: int) -> Pair:
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


def choice(name: str, value: object, allowed: tuple[Name, ...]) -> Name:
    """`value` if it is one of `allowed`, or a `GeometryError` that lists them."""
    if not isinstance(value, str) or value not in allowed:
        in_lower_case = isinstance(value, str) and value.lower() in allowed
        hint = "names are in lower case." if in_lower_case else f"for example {name}={allowed[0]!r}."
        raise GeometryError(f"{name}: got {shown(value)}, expected one of {', '.join(allowed)}.", hint=hint)
    return value


def boolean(name: str, value: object) -> bool:
    """`value` if it is True or False, or a `GeometryError` that names the argument."""
    if value is not True and value is not False:
        raise GeometryError(f"{name}: got {shown(value)}, expected True or False.", hint=f"{name}=True asks for it.")
    return value


def options(
    kernel_size: object,
    stride: object = 1,
    padding: object = 0,
    padding_mode: object = "zeros",
    dilation: object = 1,
    groups: object = 1,
    data_format: object = "NCHW",
) -> tuple[Geometry, PaddingName | Literal[""]]:
    """The checked options, as far as no image is needed for the check, and the padding's name, "" for integers."""
    padding_name = choice("padding", padding, PADDING_NAMES) if isinstance(padding, str) else ""
    geometry = Geometry(
        pair("kernel_size", kernel_size, 1),
        pair("stride", stride, 1),
        NO_PADDING if padding_name else _explicit(padding),
        choice("padding_mode", padding_mode, PADDING_MODES),
        pair("dilation", dilation, 1),
        integer("groups", groups, 1),
        choice("data_format", data_format, DATA_FORMATS),
    )
    return geometry, padding_name


def _explicit(padding: object) -> Pads:
    """A padding in integers as ((top, bottom), (left, right))."""
    if type(padding) is int and padding == 0:
        return NO_PADDING
    sides: Sequence[object] = padding if isinstance(padding, (tuple, list)) and len(padding) == 2 else ()
    if any(isinstance(side, (tuple, list)) for side in sides):
        return pair("padding", sides[0], 0), pair("padding", sides[1], 0)
    rows, columns = pair("padding", padding, 0)
    return (rows, rows), (columns, columns)


def kernel_size(kernel_shape: Sequence[int | None], data_format: object = "NCHW") -> Pair:
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
    size_is_last = len(kernel_shape) == 2 or data_format == "NCHW"
    h, w = kernel_shape[-2:] if size_is_last else kernel_shape[:2]
    if 0 in kernel_shape or h is None or w is None:
        raise ShapeError(
            f"K: got shape {tuple(kernel_shape)}, expected no size of 0.",
            hint="a kernel has at least one row, one column and one channel.",
        )
    return h, w


def check_shapes(
    shape: Sequence[int | None], kernel: Sequence[int | None], geometry: Geometry
) -> tuple[int | None, int | None]:
    """The image's (height, width), once X's shape and its channels are checked against K's."""
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
    channels_first = geometry.data_format == "NCHW"
    if len(shape) not in (3, 4):
        layout = "(C, H, W) or (N, C, H, W)" if channels_first else "(H, W, C) or (N, H, W, C)"
        raise ShapeError(
            f"X: got shape {tuple(shape)} of rank {len(shape)}, expected {layout} for a rank-4 kernel.",
            hint="a rank-2 kernel takes any leading axes.",
        )
    channels = shape[-3] if channels_first else shape[-1]
    per_group, outputs = (kernel[1], kernel[0]) if channels_first else (kernel[2], kernel[3])
    _check_channels(channels, per_group, outputs, geometry)
    return (shape[-2], shape[-1]) if channels_first else (shape[-3], shape[-2])


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
