"""The transposed convolutions of sequences, images and volumes as layers of models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...truth.bounds import sum_bound
from ...truth.transposed import scattered
from .folded import convolution
from .layer import Convolution, Layer
from .pixels import Crop
from .slopes import Slopes, summed_by_channel
from .spatial import Ends, Size


@dataclass(frozen=True, eq=False)
class TransposedConvolution(Layer):
    """`conv_transpose2d` with a kernel and a bias.

    Frameworks differ in what they take off the result and add to it: here that is one number for each edge.

    Attributes:
        kernel: (inputs, outputs / groups, h, w), as `conv_transpose2d` takes it, or with one or three axes for those
            two.
        bias: one number for each output channel, or None.
        stride: of the copies of the kernel in the result, for each axis.
        crop: the rows and columns taken off the whole result, ((top, bottom), (left, right)); below 0 where there are
            more at the bottom or on the right.
        dilation: steps between the kernel's elements, for each axis.
        groups: of channels.
        dtype: the dtype of both.
    """

    kind = "conv_transpose2d"
    arrays = ("kernel", "bias")

    kernel: np.ndarray
    bias: np.ndarray | None = None
    stride: Size = ()
    crop: Ends = ()
    dilation: Size = ()
    groups: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        rank = self.kernel.ndim - 2
        for name, default in (("stride", 1), ("crop", (0, 0)), ("dilation", 1)):
            object.__setattr__(self, name, tuple(getattr(self, name)) or (default,) * rank)

    @property
    def extent(self) -> Size:
        """The rows and columns from the kernel's first element to its last."""
        return tuple((n - 1) * d + 1 for n, d in zip(self.kernel.shape[2:], self.dilation, strict=True))

    @property
    def own_padding(self) -> tuple[Size, Size] | None:
        """The `padding` and `output_padding` of PyTorch and MXNet; None where these can't say it."""
        starts, more = tuple(start for start, _ in self.crop), tuple(start - end for start, end in self.crop)
        most = [max(axis) for axis in zip(self.stride, self.dilation, strict=True)]
        fits = all(0 <= extra < limit for extra, limit in zip(more, most, strict=True))
        return (starts, more) if fits else None

    def with_crop(self, pads: Ends) -> TransposedConvolution:
        """The layer that takes so much more off the result."""
        both = zip(self.crop, pads, strict=True)
        return replace(self, crop=tuple((start + before, end + after) for (start, end), (before, after) in both))

    def cropped(self) -> tuple[TransposedConvolution, Crop] | None:
        """The layer that takes nothing off the result, and what takes it off.

        None where there is nothing to take off, or where rows or columns are added.
        """
        if min(map(min, self.crop)) < 0 or not any(map(any, self.crop)):
            return None
        return replace(self, crop=()), Crop(self.crop)

    def output_channels(self, channels: int = 0) -> int:
        """See `Layer.output_channels`."""
        return int(self.kernel.shape[1]) * self.groups

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        whole = [(n - 1) * s + k for n, s, k in zip(size, self.stride, self.extent, strict=True)]
        return tuple(n - sum(off) for n, off in zip(whole, self.crop, strict=True))

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return self._with_bias(_cut(self._whole(x, self.kernel), self.crop), self.bias)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: Higham's bound for the sum of the products that come together in one place."""
        factors = np.abs(x) + off, np.abs(self.kernel)
        total = self._with_bias(self._whole(*factors), None if self.bias is None else np.abs(self.bias))
        # The bias is one more term, and rounding a wider sum to the dtype counts as another.
        terms = int(self._whole(*map(np.ones_like, factors)).max(initial=0)) + 2
        carried = self._whole(off, factors[1]) if off.any() else 0.0
        return _cut(sum_bound(total, terms, dtype, *factors) + carried, self.crop)

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`: the plain convolution of dy, whose gradients by its kernel are those here."""
        by_bias, bias_bound = summed_by_channel(dy, np.abs(dy), dtype, 1)
        plain, dy = self._plain, _cut(dy, tuple((-start, -end) for start, end in self.crop))
        true, bounds = plain.gradients(dy, x, dtype)
        by_image, image_bound = plain.reference(dy), plain.error(dy, np.zeros_like(dy), dtype)
        return (
            {"X": by_image, "K": true["K"], "bias": by_bias},
            {"X": image_bound, "K": bounds["K"], "bias": bias_bound},
        )

    @property
    def _plain(self) -> Convolution:
        """The convolution whose gradient by its image this computes."""
        return convolution(self.kernel, None, self.dtype, self.groups, stride=self.stride, dilation=self.dilation)

    def _whole(self, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """The result of a kernel with nothing taken off, in float64."""
        wide = x.astype(np.float64), kernel.astype(np.float64)
        return scattered(*wide, self.stride, self.dilation, self.groups)

    def _with_bias(self, x: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        return x if bias is None else x + np.asarray(bias, np.float64).reshape(-1, *(1,) * (x.ndim - 2))


def _cut(whole: np.ndarray, crop: Ends) -> np.ndarray:
    """A result with its edges taken off, or with zeros in more rows and columns where that is below 0."""
    pads = [(max(-start, 0), max(-end, 0)) for start, end in crop]
    inside = (slice(max(start, 0), -max(end, 0) or None) for start, end in crop)
    return np.pad(whole, ((0, 0), (0, 0), *pads))[(..., *inside)]


@dataclass(frozen=True, eq=False)
class TransposedConvolution1D(TransposedConvolution):
    """A transposed convolution of sequences (N, C, L)."""

    kind = "conv_transpose1d"


@dataclass(frozen=True, eq=False)
class TransposedConvolution3D(TransposedConvolution):
    """A transposed convolution of volumes (N, C, D, H, W)."""

    kind = "conv_transpose3d"


# Of one axis, two, and three.
TRANSPOSED = (TransposedConvolution1D, TransposedConvolution, TransposedConvolution3D)


def transposed_convolution(kernel: np.ndarray, *arguments: Any) -> TransposedConvolution:
    """The transposed convolution of a kernel, (inputs, outputs / groups, …), with as many axes as it has beside those.

    >>> transposed_convolution(np.ones((2, 4, 3)), None, (2,)).output_size((7,))
    (15,)
    """
    return TRANSPOSED[kernel.ndim - 3](kernel, *arguments)


def named_crop(padding: str, extent: Size, stride: Size, output_padding: Size | None = None) -> Ends:
    """What Keras and Flax take off the whole result by their padding's name, "same" or "valid".

    Args:
        padding: the name.
        extent: the places that the kernel reaches over, on each axis.
        stride: of its copies.
        output_padding: Keras's, where it is given.

    >>> named_crop("same", (3, 3), (2, 2)), named_crop("valid", (1, 3), (2, 2))
    (((0, 1), (0, 1)), ((0, -1), (0, 0)))
    """
    crops = []
    for axis, (k, s) in enumerate(zip(extent, stride, strict=True)):
        if output_padding is not None:
            total = (2 * (k // 2) if padding == "same" else 0) - output_padding[axis]
        else:
            total = k - s if padding == "same" else min(k - s, 0)
        start = max(total, 0) // 2
        crops.append((start, total - start))
    return tuple(crops)


def turned(kernel: np.ndarray, groups: int) -> np.ndarray:
    """The kernel of the convolution of an image with zeros between its pixels that a transposed convolution is.

    Its first axes are (outputs, inputs / groups); of such a kernel it makes that of the transposed convolution again.

    >>> turned(np.arange(8).reshape(2, 2, 2), 2).tolist()
    [[[1, 0]], [[3, 2]], [[5, 4]], [[7, 6]]]
    """
    first, second, *size = kernel.shape
    swapped = kernel.reshape(groups, first // groups, second, *size).swapaxes(1, 2)
    flipped = np.flip(swapped, tuple(range(3, kernel.ndim + 1)))
    return np.ascontiguousarray(flipped.reshape(groups * second, first // groups, *size))
