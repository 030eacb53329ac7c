"""The pixels of images in one row: the boxes of detectors, and tokens as a model's result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .channels import Moving
from .joining import Joining
from .layer import Layer
from .spatial import Size


@dataclass(frozen=True, eq=False)
class Anchors(Moving):
    """The channels of each pixel in equal parts, which become pixels side by side.

    (N, count * C, H, W) becomes (N, C, H, W * count): what a detector says of the boxes at a pixel, box by box. In the
    frameworks its pixels, row by row, are those of `reshape(N, -1, C)` of images (N, H, W, count * C).

    Source: arXiv:1512.02325, section 2.1; arXiv:1708.02002, section 4.

    Attributes:
        count: how many boxes each pixel has.
    """

    kind = "anchors"

    count: int

    @property
    def divisor(self) -> int:
        """See `Moving`."""
        return self.count

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        return channels // self.count

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return size[0], size[1] * self.count

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        n, channels, rows, columns = x.shape
        boxes = x.reshape(n, self.count, channels // self.count, rows, columns).transpose(0, 2, 3, 4, 1)
        return boxes.reshape(n, channels // self.count, rows, columns * self.count)


@dataclass(frozen=True, eq=False)
class ConcatenatePixels(Joining):
    """The pixels of its inputs, row by row, one input after another, as an image of one column: (N, C, pixels, 1)."""

    kind = "concatenate_pixels"

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        return np.concatenate([value.reshape(*value.shape[:2], -1, 1) for value in values], axis=2)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`."""
        return self.reference(*off)

    def joined_size(self, sizes: Sequence[Size]) -> Size:
        """See `Joining.joined_size`."""
        return sum(map(math.prod, sizes)), 1


@dataclass(frozen=True, eq=False)
class Tokens(Layer):
    """The pixels of images, row by row, as the tokens of a sequence: (N, H * W, C) in every framework.

    It gives a result of a model: no layer but `convlab.models.layers.outputs.Outputs` takes tokens.
    """

    kind = "tokens"

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return x.reshape(*x.shape[:2], -1).swapaxes(1, 2)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return self.reference(off)
