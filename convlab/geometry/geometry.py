"""`Geometry`: where a kernel meets an image.

Arithmetic with sizes alone (`output_shape`, `receptive_field`) has no limits. What is computed has some
(`convlab.geometry.limits`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
PaddingName = Literal["valid", "same", "same_lower", "full"]
# A padding as it is given: a name of convlab or an alias (`names`), or integers.
Padding = int | Pair | Pads | str
PaddingMode = Literal["zeros", "reflect", "symmetric", "replicate", "circular"]
DataFormat = Literal["NCHW", "NHWC"]

PADDING_NAMES: tuple[PaddingName, ...] = ("valid", "same", "same_lower", "full")
PADDING_MODES: tuple[PaddingMode, ...] = ("zeros", "reflect", "replicate", "circular", "symmetric")
DATA_FORMATS: tuple[DataFormat, ...] = ("NCHW", "NHWC")
NO_PADDING: Pads = ((0, 0), (0, 0))

# The longest axis of what is computed: MXNet's sizes and oneDNN's strides are int32.
LONGEST = 2**31 - 1
# The most bits of any integer: such a number can be printed and converted to a float.
MOST_BITS = 1023


class Geometry(NamedTuple):
    """A correlation's geometry, lowered to integers: all that an algorithm needs beside X and K.

    The algorithms know no other constant border than zeros: an image gets a border of `padding_value` before they see
    it (`convlab.correlation.images.with_value`).
    """

    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Pads = NO_PADDING
    padding_mode: PaddingMode = "zeros"
    dilation: Pair = (1, 1)
    groups: int = 1
    data_format: DataFormat = "NCHW"
    padding_value: float = 0.0

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

    def transposed_size(self, size: Pair, output_padding: Pair = (0, 0)) -> Pair:
        """Rows and columns of the result of `conv_transpose2d` for an image of `size`; `output_size` undoes it.

        >>> Geometry((3, 3), stride=(2, 2)).transposed_size((4, 5))
        (9, 11)
        """
        rows, columns = (
            (n - 1) * stride + extent - lo - hi + more
            for n, (lo, hi), extent, stride, more in zip(
                size, self.padding, self.extent, self.stride, output_padding, strict=True
            )
        )
        return rows, columns

    def swapped(self) -> Geometry:
        """The geometry of the image and the kernel with rows and columns swapped."""
        pairs = {name: getattr(self, name)[::-1] for name in ("kernel_size", "stride", "padding", "dilation")}
        return self._replace(**pairs)


def placed(kernel_size: Pair, dilation: Pair, element: Pair) -> Pads:
    """The padding with which an element of the kernel, counted from its first, lies on each pixel.

    >>> placed((3, 4), (1, 2), (1, 2))
    ((1, 1), (4, 2))
    """
    rows, columns = (
        (place * step, (n - 1 - place) * step) for n, step, place in zip(kernel_size, dilation, element, strict=True)
    )
    return rows, columns


class IdleStrides(NamedTuple):
    """What `idle_strides` returns.

    Attributes:
        size: the rows and columns of the padded image that are used.
        stride: the strides, 1 for those that do nothing.
    """

    size: Pair
    stride: Pair


def idle_strides(geometry: Geometry, size: Pair) -> IdleStrides | None:
    """The part of the padded image that is used and the strides, with 1 for each axis that has a single output.

    The stride of such an axis does nothing. None if there is no such stride other than 1. oneDNN, under PyTorch and
    TensorFlow, returns garbage for one channel, one output column and a stride (1, s).
    """
    if geometry.stride == (1, 1):
        return None
    outputs = geometry.output_size(size)
    if not any(n == 1 and s > 1 for n, s in zip(outputs, geometry.stride, strict=True)):
        return None
    rows, columns = ((n - 1) * s + e for n, s, e in zip(outputs, geometry.stride, geometry.extent, strict=True))
    down, right = (1 if n == 1 else s for n, s in zip(outputs, geometry.stride, strict=True))
    return IdleStrides((rows, columns), (down, right))


def border_index(i: int, n: int, mode: PaddingMode) -> int:
    """The index of the pixel, out of n, that stands at position i of the padded axis, for any mode but "zeros".

    As in numpy.pad, the definition goes on beyond one image's width.
    """
    if mode == "circular":
        return i % n
    if mode == "symmetric":
        return min(i % (2 * n), (-1 - i) % (2 * n))
    if mode == "replicate" or n == 1:
        return min(max(i, 0), n - 1)
    period = 2 * (n - 1)
    return min(i % period, -i % period)
