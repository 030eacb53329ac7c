"""The options of a transposed convolution, fitted to an image's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict

from ..errors import GeometryError, ShapeError
from .checks import pair, shown
from .geometry import Geometry, Padding, PaddingName, Pair
from .lower import lower


class TransposedOptions(TypedDict, total=False):
    """The keyword arguments of `conv_transpose2d` that say where the kernel goes, and their types."""

    stride: int | Pair
    padding: Padding
    output_padding: int | Pair
    dilation: int | Pair
    groups: int
    data_format: str | None


class TransposedGeometry(NamedTuple):
    """Where `conv_transpose2d` puts the kernel.

    Attributes:
        geometry: the geometry of the correlation that is transposed, its padding in integers.
        output_padding: rows and columns to add at the end, fewer than the stride.
        zeros: rows and columns of zeros to add at the end of Y. Each stands for a whole stride of output padding.
        result: the result's rows and columns; None where Y's aren't known while tracing.
    """

    geometry: Geometry
    output_padding: Pair
    zeros: Pair
    result: tuple[int | None, int | None]


def lower_transposed(
    geometry: Geometry,
    padding_name: PaddingName | Literal[""],
    output_padding: object,
    size: Sequence[int | None],
) -> TransposedGeometry:
    """Fit checked options to a Y of `size` (None: not known while tracing).

    "same" and "same_lower" pad as for a result of `n * stride`, which is Keras's and ONNX's; "full" as `corr2d` does.

    >>> lower_transposed(Geometry((3, 3), stride=(2, 2)), "same", 0, (4, 5)).result
    (8, 10)

    Raises:
        ShapeError: a Y without rows or columns.
        GeometryError: an output padding that is too large, or a padding that leaves nothing.
    """
    more = _checked_output_padding(geometry, padding_name, output_padding)
    if 0 in size:
        raise ShapeError(
            f"Y: got {size[0]} rows and {size[1]} columns, expected at least one of each.",
            hint="a batch may be empty, an image may not.",
        )
    if padding_name:
        axes = [_named_pads(padding_name, *axis) for axis in zip(geometry.extent, geometry.stride, more, strict=True)]
        geometry, more = geometry._replace(padding=(axes[0][0], axes[1][0])), (axes[0][1], axes[1][1])
    zeros = more[0] // geometry.stride[0], more[1] // geometry.stride[1]
    more = more[0] % geometry.stride[0], more[1] % geometry.stride[1]
    rows, columns = geometry.transposed_size(((size[0] or 1) + zeros[0], (size[1] or 1) + zeros[1]), more)
    for axis, known, n, pads in zip(("rows", "columns"), size, (rows, columns), geometry.padding, strict=True):
        if known is not None and n < 1:
            raise GeometryError(
                f"padding: got {pads}, which takes {sum(pads)} {axis} off a result of {n + sum(pads)}, expected to "
                "leave at least one.",
                hint="the padding of a transposed convolution makes its result smaller.",
            )
    result = rows if size[0] is not None else None, columns if size[1] is not None else None
    return TransposedGeometry(lower(geometry, "", result), more, zeros, result)


def _checked_output_padding(geometry: Geometry, padding_name: str, output_padding: object) -> Pair:
    """The output padding as a pair."""
    more = pair("output_padding", output_padding, 0)
    most = [max(axis) for axis in zip(geometry.stride, geometry.dilation, strict=True)]
    if more[0] >= most[0] or more[1] >= most[1]:
        raise GeometryError(
            f"output_padding: got {shown(output_padding)} with stride {geometry.stride} and dilation "
            f"{geometry.dilation}, expected less than the larger of the two along each axis.",
            hint="a smaller padding at the end makes the result larger: padding=((top, bottom), (left, right)).",
        )
    if padding_name in ("same", "same_lower") and more != (0, 0):
        raise GeometryError(
            f"output_padding: got {shown(output_padding)} with padding={padding_name!r}, expected 0: the result has "
            "n * stride rows and columns.",
            hint="give the padding in integers.",
        )
    return more


def _named_pads(padding_name: str, extent: int, stride: int, more: int) -> tuple[Pair, int]:
    """The rows that a padding's name takes off at both ends, and those that are added at the end."""
    if padding_name == "valid":
        return (0, 0), more
    if padding_name == "full":
        return (extent - 1, extent - 1), more
    total = max(extent - stride, 0)
    small = total // 2
    pads = (small, total - small) if padding_name == "same" else (total - small, small)
    return pads, max(stride - extent, 0)
