"""The transposed convolution as a layer of models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...geometry.geometry import NO_PADDING, Pads, Pair
from ...truth.bounds import error_bound, gradient_bounds
from ...truth.oracle import oracle, oracle_gradients
from ...truth.transposed import transposed_error_bound, transposed_oracle
from .layer import Layer
from .pixels import Crop
from .slopes import Slopes, summed_by_channel
from .spatial import Ends, Size


@dataclass(frozen=True, eq=False)
class TransposedConvolution(Layer):
    """`conv_transpose2d` with a kernel and a bias.

    Frameworks differ in what they take off the result and add to it: here that is one number for each edge.

    Attributes:
        kernel: (inputs, outputs / groups, h, w), as `conv_transpose2d` takes it.
        bias: one number for each output channel, or None.
        stride: of the copies of the kernel in the result.
        crop: the rows and columns taken off the whole result, ((top, bottom), (left, right)); below 0 where there are
            more at the bottom or on the right.
        dilation: steps between the kernel's elements.
        groups: of channels.
        dtype: the dtype of both.
    """

    kind = "conv_transpose2d"
    arrays = ("kernel", "bias")

    kernel: np.ndarray
    bias: np.ndarray | None = None
    stride: Pair = (1, 1)
    crop: Pads = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    dtype: str = "float32"

    @property
    def extent(self) -> Pair:
        """The rows and columns from the kernel's first element to its last."""
        (h, w), (down, across) = self.kernel.shape[2:], self.dilation
        return (h - 1) * down + 1, (w - 1) * across + 1

    @property
    def own_padding(self) -> tuple[Pair, Pair] | None:
        """The `padding` and `output_padding` of PyTorch and MXNet; None where these can't say it."""
        (top, bottom), (left, right) = self.crop
        more = top - bottom, left - right
        most = [max(axis) for axis in zip(self.stride, self.dilation, strict=True)]
        if min(more) < 0 or more[0] >= most[0] or more[1] >= most[1]:
            return None
        return (top, left), more

    def with_crop(self, pads: Ends) -> TransposedConvolution:
        """The layer that takes so much more off the result."""
        both = zip(self.crop, pads, strict=True)
        rows, columns = ((start + before, end + after) for (start, end), (before, after) in both)
        return replace(self, crop=(rows, columns))

    def cropped(self) -> tuple[TransposedConvolution, Crop] | None:
        """The layer that takes nothing off the result, and what takes it off.

        None where there is nothing to take off, or where rows or columns are added.
        """
        if min(map(min, self.crop)) < 0 or self.crop == NO_PADDING:
            return None
        return replace(self, crop=NO_PADDING), Crop(self.crop)

    def output_channels(self, channels: int = 0) -> int:
        """See `Layer.output_channels`."""
        return int(self.kernel.shape[1]) * self.groups

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        whole = [(n - 1) * s + k for n, s, k in zip(size, self.stride, self.extent, strict=True)]
        rows, columns = (n - sum(off) for n, off in zip(whole, self.crop, strict=True))
        return rows, columns

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return self._cut(transposed_oracle(x, self.kernel, **self._options), self.bias)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: as for a convolution."""
        bound = transposed_error_bound(np.abs(x) + off, self.kernel, bias=self.bias, dtype=dtype, **self._options)
        carried = transposed_oracle(off, np.abs(self.kernel), **self._options) if off.any() else 0 * bound
        return self._cut(bound + carried, None)

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`: the plain convolution of dy, whose gradients by its kernel are those here."""
        inner = [(max(start, 0), max(end, 0)) for start, end in self.crop]
        (top, bottom), (left, right) = ((max(-start, 0), max(-end, 0)) for start, end in self.crop)
        by_bias, bias_bound = summed_by_channel(dy, np.abs(dy), dtype, 1)
        dy = np.pad(dy[:, :, top : dy.shape[2] - bottom, left : dy.shape[3] - right], ((0, 0), (0, 0), *inner))
        by_kernel = oracle_gradients(dy, self.kernel, x, **self._options)
        bounds = gradient_bounds(dy, self.kernel, x, dtype, **self._options)
        by_image = oracle(dy, self.kernel, **self._options)
        image_bound = error_bound(dy, self.kernel, dtype=dtype, **self._options)
        return (
            {"X": by_image, "K": by_kernel.K, "bias": by_bias},
            {"X": image_bound, "K": bounds.K, "bias": bias_bound},
        )

    @property
    def _options(self) -> Any:
        return {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}

    def _cut(self, whole: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """The result with its edges taken off, or with more rows and columns, in which there is the bias alone."""
        pads = [(max(-start, 0), max(-end, 0)) for start, end in self.crop]
        x = np.pad(whole, ((0, 0), (0, 0), *pads))
        (top, bottom), (left, right) = ((max(start, 0), max(end, 0)) for start, end in self.crop)
        x = x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
        return x if bias is None else x + np.asarray(bias, np.float64).reshape(-1, 1, 1)


def named_crop(padding: str, extent: Pair, stride: Pair, output_padding: Pair | None = None) -> Pads:
    """What Keras and Flax take off the whole result by their padding's name, "same" or "valid".

    Args:
        padding: the name.
        extent: the rows and columns that the kernel reaches over.
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
    return crops[0], crops[1]
