"""Layers that take pixels away, or put new ones between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ShapeError
from ...geometry.geometry import Pair
from .layer import Layer
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
class Upsample(Layer):
    """The image with so many times as many rows and columns.

    Pixel i of the result lies at (i + 1/2) / factor - 1/2 of the image, or with `align_corners` at
    i * (n - 1) / (n * factor - 1) of its n rows, so that the corners meet; beyond the edge the edge's pixels are taken.

    Attributes:
        factor: of the rows and of the columns.
        method: "nearest" repeats pixels, "bilinear" interpolates between the nearest two.
        align_corners: see above; for "bilinear" alone.
    """

    kind = "upsample"

    factor: Pair
    method: str
    align_corners: bool = False

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return size[0] * self.factor[0], size[1] * self.factor[1]

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        if self.method == "nearest":
            return x.repeat(self.factor[0], 2).repeat(self.factor[1], 3)
        rows, columns = (np.maximum(1 - distance, 0) for distance in self._distances(x))
        return np.asarray(rows @ x @ columns.T)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: the weights are as wrong as the roundings of a pixel's place make them."""
        if self.method == "nearest":
            return self.reference(off)
        rows, columns = (np.asarray(distance < 1.5, np.float64) for distance in self._distances(x))
        unit = 2.0 ** -SIGNIFICAND[dtype]
        rounding = 8 * unit * (max(x.shape[2:]) + 1) * (rows @ (np.abs(x) + off) @ columns.T)
        return np.asarray(self.reference(off) + rounding)

    def _distances(self, x: np.ndarray) -> list[np.ndarray]:
        """How far each row of the result is from each row of the image, and the same for columns."""
        distances = []
        for n, factor in zip(x.shape[2:], self.factor, strict=True):
            i = np.arange(n * factor)
            place = i * (n - 1) / max(n * factor - 1, 1) if self.align_corners else (i + 0.5) / factor - 0.5
            distances.append(np.abs(np.clip(place, 0, n - 1)[:, None] - np.arange(n)))
        return distances
