"""Layers that take pixels away, or put new ones between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ShapeError
from ...geometry.geometry import Pair
from .layer import Layer
from .resizing import Resampled
from .spatial import Ends, Size, times


@dataclass(frozen=True, eq=False)
class Crop(Layer):
    """The image without some rows and columns at its edges.

    Attributes:
        pads: how many, ((top, bottom), (left, right)), or as many pairs as there are axes.
    """

    kind = "crop"

    pads: Ends

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`.

        Raises:
            ShapeError: nothing is left.
        """
        after = tuple(n - sum(ends) for n, ends in zip(size, self.pads, strict=True))
        if min(after) < 1:
            raise ShapeError(
                f"crop: got an image of {times(size)} pixels, expected more than {self.pads} takes off.",
                hint="a larger image goes through.",
            )
        return after

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return x[(..., *(slice(start, -end or None) for start, end in self.pads))]

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return self.reference(off)


@dataclass(frozen=True, eq=False)
class Subsample(Layer):
    """Some of the image's rows and columns: the first, and then each so many further on.

    Four of them, with step 2, hold the pixels of an image of twice the size: YOLOv5's focus, Swin's patch merging.

    Attributes:
        start: the first row and column.
        step: how far the next ones are.
    """

    kind = "subsample"

    start: Pair
    step: Pair

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`.

        Raises:
            ShapeError: nothing is left.
        """
        rows, columns = (-(-(n - i) // s) for n, i, s in zip(size, self.start, self.step, strict=True))
        if rows < 1 or columns < 1:
            raise ShapeError(
                f"subsample: got an image of {times(size)} pixels, expected more than {self.start}.",
                hint="a larger image goes through.",
            )
        return rows, columns

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        (i, j), (down, across) = self.start, self.step
        return x[:, :, i::down, j::across]

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return self.reference(off)


@dataclass(frozen=True, eq=False)
class Upsample(Resampled):
    """The image with so many times as many rows and columns.

    Attributes:
        factor: of the rows and of the columns, or of as many axes as there are.
        method: "nearest" or "bilinear".
    """

    kind = "upsample"

    factor: Size
    method: str
    align_corners: bool = False

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return tuple(n * times for n, times in zip(size, self.factor, strict=True))
