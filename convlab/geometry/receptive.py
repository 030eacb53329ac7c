"""The receptive field of a stack of layers: the part of the input on which one element of the result depends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import GeometryError
from .checks import shown
from .geometry import Geometry, Pads, Pair
from .options import options


class ReceptiveField(NamedTuple):
    """The receptive field of one output element.

    Attributes:
        size: rows and columns of the input it depends on.
        stride: input rows and columns between the fields of neighbouring elements.
        offset: input row and column where element (0, 0)'s field starts (negative: in the padding).
    """

    size: Pair
    stride: Pair
    offset: Pair

    def inputs(self, row: int, column: int) -> tuple[range, range]:
        """The input rows and columns that feed output element (row, column).

        >>> receptive_field([2, 2]).inputs(0, 0)
        (range(0, 3), range(0, 3))
        """
        starts = (
            offset + index * stride
            for offset, index, stride in zip(self.offset, (row, column), self.stride, strict=True)
        )
        top, left = starts
        return range(top, top + self.size[0]), range(left, left + self.size[1])


def receptive_field(layers: Iterable[Any]) -> ReceptiveField:
    """The receptive field of a stack of layers, first layer first.

    Each layer is a kernel size (an int or a pair), or a mapping with `kernel_size` and, if they differ from
    corr2d's defaults, `stride`, `padding` (integers) and `dilation`.

    The chapter's example: a 2x2 kernel on a 2x2 kernel's output sees all nine elements of a 3x3 image.

    >>> receptive_field([2, 2]).size
    (3, 3)
    >>> receptive_field([{"kernel_size": 7, "stride": 2, "padding": 3}, {"kernel_size": 3, "stride": 2}])
    ReceptiveField(size=(11, 11), stride=(4, 4), offset=(-3, -3))

    Formula: size grows by (extent - 1) * stride so far, stride multiplies, offset falls by padding * stride
    so far (Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019).

    It is computed in Python's integers, of any size.

    Raises:
        GeometryError: a layer without a kernel size, or one whose padding is a name.
    """
    size, stride, offset = (1, 1), (1, 1), (0, 0)
    if not isinstance(layers, Iterable):
        raise GeometryError(f"layers: got {shown(layers)}, expected a list of layers.", hint="[3] is one layer.")
    for layer in layers:
        geometry = _geometry(layer)
        size = _per_axis(lambda n, s, e: n + (e - 1) * s, size, stride, geometry.extent)
        offset = _per_axis(lambda o, s, p: o - p[0] * s, offset, stride, geometry.padding)
        stride = _per_axis(lambda s, t: s * t, stride, geometry.stride)
    return ReceptiveField(size, stride, offset)


def _per_axis(formula: Callable[..., int], *pairs: Pair | Pads) -> Pair:
    """A formula's values for the rows and for the columns."""
    rows, columns = (formula(*values) for values in zip(*pairs, strict=True))
    return rows, columns


def _geometry(layer: Any) -> Geometry:
    """A layer's checked options, or a `GeometryError` for a layer that has no fixed receptive field."""
    arguments = dict(layer) if isinstance(layer, Mapping) else {"kernel_size": layer}
    unknown = set(arguments) - {"kernel_size", "stride", "padding", "dilation"}
    if unknown or "kernel_size" not in arguments:
        raise GeometryError(
            f"layers: got {shown(layer)}, expected a kernel size, or a mapping with kernel_size, stride, padding and "
            "dilation.",
            hint='{"kernel_size": 3, "stride": 2} is one layer.',
        )
    geometry, padding_name = options(**arguments)
    if padding_name not in ("", "valid"):
        raise GeometryError(
            f"padding: got {padding_name!r}, expected integers: {padding_name!r} depends on the image's size.",
            hint="convlab.output_shape helps to find them.",
        )
    return geometry
