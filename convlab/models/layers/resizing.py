"""Images made smaller or larger, to a size or to that of another image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...dtypes import SIGNIFICAND
from ...geometry.geometry import Pair
from .joining import Like
from .layer import Layer
from .spatial import Size

# "nearest" and "nearest_exact" are alike where an image becomes a whole number of times as large.
METHODS = ("nearest", "nearest_exact", "bilinear")


def resized(x: np.ndarray, size: Size, method: str, align_corners: bool) -> np.ndarray:
    """Images (N, C, H, W) with other rows and columns; or images of any number of axes, each of which counts likewise.

    Row i of m lies at (i + 1/2) * n / m - 1/2 of the n rows of the image, or with `align_corners` at
    i * (n - 1) / (m - 1), so that the corners meet; "bilinear" weighs the nearest two rows, and beyond the edge takes
    the edge's. In PyTorch's words, "nearest_exact" takes row floor((i + 1/2) * n / m), "nearest" floor(i * n / m).

    >>> resized(np.array([[[[0.0, 4.0, 8.0]]]]), (1, 2), "bilinear", False)
    array([[[[1., 7.]]]])
    >>> [resized(np.arange(4.0).reshape(1, 1, 1, 4), (1, 2), method, False).tolist()[0][0][0] for method in METHODS[:2]]
    [[0.0, 2.0], [1.0, 3.0]]
    """
    if method == "bilinear":
        return _weighed(x, [np.maximum(1 - distance, 0) for distance in _distances(x, size, align_corners)])
    for axis, m in enumerate(size, 2):
        x = np.take(x, _nearest(x.shape[axis], m, method), axis)
    return x


def _weighed(x: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """The image whose rows are sums of x's with weights (rows of the result, rows of x), and so on for each axis."""
    for axis, matrix in enumerate(weights, 2):
        x = np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


def resizing_error(
    x: np.ndarray, off: np.ndarray, dtype: str, size: Size, method: str, align_corners: bool
) -> np.ndarray:
    """See `Layer.error`: the weights are as wrong as the roundings of a pixel's place make them."""
    carried = resized(off, size, method, align_corners)
    if method != "bilinear":
        return carried
    near = [np.asarray(distance < 1.5, np.float64) for distance in _distances(x, size, align_corners)]
    unit = 4 * len(size) * 2.0 ** -SIGNIFICAND[dtype]
    return np.asarray(carried + unit * (max(x.shape[2:]) + 1) * _weighed(np.abs(x) + off, near))


def _nearest(n: int, m: int, method: str) -> np.ndarray:
    """Which of n rows each of m is."""
    i = np.arange(m)
    return i * n // m if method == "nearest" else (2 * i + 1) * n // (2 * m)


def _distances(x: np.ndarray, size: Size, align_corners: bool) -> list[np.ndarray]:
    """How far each row of the result is from each row of the image, and the same for columns."""
    distances = []
    for n, m in zip(x.shape[2:], size, strict=True):
        i = np.arange(m)
        place = i * (n - 1) / max(m - 1, 1) if align_corners else (i + 0.5) * n / m - 0.5
        distances.append(np.abs(np.clip(place, 0, n - 1)[:, None] - np.arange(n)))
    return distances


class Resampled(Layer):
    """A layer whose result is the image with the rows and columns of `output_size`.

    Attributes:
        method: one of `METHODS`: see `resized`.
        align_corners: for "bilinear" alone.
    """

    method: str
    align_corners: bool

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return resized(x, self.output_size(x.shape[2:]), self.method, self.align_corners)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return resizing_error(x, off, dtype, self.output_size(x.shape[2:]), self.method, self.align_corners)


@dataclass(frozen=True, eq=False)
class Resize(Resampled):
    """The image with so many rows and columns, whatever it has.

    Attributes:
        size: how many.
    """

    kind = "resize"

    size: Pair
    method: str
    align_corners: bool = False

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return self.size


@dataclass(frozen=True, eq=False)
class ResizeLike(Like):
    """The first of two inputs with the rows and columns of the second, of which nothing else counts.

    Attributes:
        method: one of `METHODS`: see `resized`.
        align_corners: for "bilinear" alone.
    """

    kind = "resize_like"

    method: str
    align_corners: bool = False

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        x, like = values
        return resized(x, like.shape[2:], self.method, self.align_corners)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`."""
        x, like = values
        return resizing_error(x, off[0], dtype, like.shape[2:], self.method, self.align_corners)
