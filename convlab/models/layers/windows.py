"""Attention in windows of an image, every other time in shifted ones: Swin, arXiv:2103.14030."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...dtypes import SIGNIFICAND
from ...geometry.geometry import Pair
from .activations import least_normal
from .attention import SCALED, Attention, both_of
from .attention_slopes import Heads, Rounded, direction_slope, product_slopes
from .slopes import Slopes

# What is added to the scores of pixels that the shift alone has brought into one window.
_APART = -100.0
# The length by which shorter vectors are divided: PyTorch's, of `F.normalize`.
SHORTEST = 1e-12
# Beyond any vector: one that is off by so much may have any direction.
_FAR = 1e100
# Of a root, a quotient and what stands between them, beside those of a sum of squares.
_ROUNDINGS = 8


class Windows(NamedTuple):
    """The windows of images of a size.

    Attributes:
        padded: the rows and columns of the image once it is a multiple of the window.
        places: (windows, pixels of a window): where each pixel is in the flattened padded image.
        back: where each pixel of the image, row by row, is in the flattened windows.
        mask: (windows, pixels, pixels): what is added to the score of each two pixels of a window.
    """

    padded: Pair
    places: np.ndarray
    back: np.ndarray
    mask: np.ndarray


@functools.lru_cache(maxsize=128)
def windows_of(size: Pair, window: Pair, shift: Pair, grid: bool = False) -> Windows:
    """The windows of images of a size, moved up and to the left by a shift, or spread as grids over the whole image.

    >>> windows_of((2, 3), (2, 2), (0, 1)).places
    array([[1, 2, 5, 6],
           [3, 0, 7, 4]])
    >>> windows_of((2, 3), (2, 2), (0, 0), grid=True).places
    array([[0, 2, 4, 6],
           [1, 3, 5, 7]])
    """
    padded = tuple(-(-n // k) * k for n, k in zip(size, window, strict=True))
    # Along an axis of one window there is nothing to shift.
    moved = [0 if grid or k >= n else s for n, k, s in zip(padded, window, shift, strict=True)]
    rows, columns = ((np.arange(n) + s) % n for n, s in zip(padded, moved, strict=True))
    places = (_spread if grid else _cut)(rows[:, None] * padded[1] + columns, window)
    regions = [_regions(n, k, s) for n, k, s in zip(padded, window, moved, strict=True)]
    region = _cut(3 * regions[0][:, None] + regions[1], window)
    mask = np.where(region[:, :, None] == region[:, None], 0.0, _APART)
    inverse = np.empty(places.size, np.int64)
    inverse[places.ravel()] = np.arange(places.size)
    back = inverse.reshape(padded)[: size[0], : size[1]].ravel()
    return Windows((padded[0], padded[1]), places, back, mask)


def _cut(image: np.ndarray, window: Pair) -> np.ndarray:
    """The numbers of each window, (windows, pixels)."""
    (rows, columns), (h, w) = image.shape, window
    return image.reshape(rows // h, h, columns // w, w).swapaxes(1, 2).reshape(-1, h * w)


def _spread(image: np.ndarray, window: Pair) -> np.ndarray:
    """The numbers of each grid, (grids, pixels)."""
    (rows, columns), (h, w) = image.shape, window
    return image.reshape(h, rows // h, w, columns // w).transpose(1, 3, 0, 2).reshape(-1, h * w)


def _regions(n: int, window: int, shift: int) -> np.ndarray:
    """Which of the three stretches of a shifted axis each place is in: the last two share a window."""
    places = np.arange(n)
    return (places >= n - window).astype(int) + (places >= n - shift) if shift else np.zeros(n, int)


def distances(window: Pair) -> int:
    """How many distances two pixels of a window may have: the rows of a table of position biases."""
    return (2 * window[0] - 1) * (2 * window[1] - 1)


def relative_places(window: Pair) -> np.ndarray:
    """For each two pixels of a window the row of a table of position biases, (pixels, pixels).

    >>> relative_places((1, 2))
    array([[1, 0],
           [2, 1]])
    """
    h, w = window
    rows, columns = (axis.ravel() for axis in np.mgrid[:h, :w])
    down, across = (axis[:, None] - axis for axis in (rows, columns))
    return np.asarray((down + h - 1) * (2 * w - 1) + across + w - 1)


@dataclass(frozen=True, eq=False)
class WindowAttention(Attention):
    """`Attention` of the pixels of each window to one another, with a learned bias for each two places in a window.

    The image is padded with zeros at its lower and right edges to a multiple of the window. With a shift the windows
    lie so far up and to the left, and wrap around; pixels that only then share a window don't attend to one another.

    With a scale the scores are the cosines of the angles between queries and keys, times a number for each head:
    Swin V2, arXiv:2111.09883.

    With a grid the pixels of a window lie as far from one another as they can, and each window all over the image:
    MaxViT, arXiv:2204.01697. Grids aren't shifted.

    Attributes:
        table: ((2 * rows - 1) * (2 * columns - 1), heads): the bias by how far apart two pixels are.
        window: its rows and columns.
        shift: of the windows.
        size: the only rows and columns of images that it is for; None for all.
        scale: (heads,), by which the cosines are multiplied; None for scores that aren't cosines.
        grid: whether the windows are grids.
    """

    kind = "window_attention"
    arrays = ("kernel", "bias", "out_kernel", "out_bias", "table", "scale")

    table: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))
    window: Pair = (1, 1)
    shift: Pair = (0, 0)
    size: Pair | None = field(default=None, compare=False)
    scale: np.ndarray | None = None
    grid: bool = False

    @property
    def cosine(self) -> bool:
        """Whether the scores are cosines."""
        return self.scale is not None

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        windows = self._windows(x)
        return self._together(self._attend(self._apart(x, windows), self._added(windows, len(x))), x, windows)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        windows = self._windows(x)
        apart = self._apart(x, windows), self._apart(off, windows)
        return self._together(self._attend_error(*apart, dtype, self._added(windows, len(x))), x, windows)

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`; that by `scale` isn't known."""
        windows = self._windows(x)
        apart = self._apart(x, windows), self._apart(dy, windows)
        slopes, by_scores = self._attend_slopes(*apart, dtype, self._added(windows, len(x)))
        slopes["X"] = Rounded(*(self._together(each, x, windows) for each in slopes["X"]))
        return both_of({**slopes, "table": self._by_table(by_scores, 2.0 ** -SIGNIFICAND[dtype])})

    def _by_table(self, by_scores: Rounded, unit: float) -> Rounded:
        """The gradient by the table, from that by the scores: those of pixels as far apart are added up."""
        sizes = by_scores.true, by_scores.off, by_scores.largest
        true, off, largest = (np.zeros(self.table.shape) for _ in sizes)
        places = relative_places(self.window)
        for total, each in zip((true, off, largest), sizes, strict=True):
            np.add.at(total, places, each.sum(0).transpose(1, 2, 0))
        terms = len(by_scores.true) * places.size
        return Rounded(true, off + terms * unit * largest)

    def _scores(self, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        if self.scale is None:
            return super()._scores(queries, keys)
        scale = np.asarray(self.scale, np.float64)[:, None, None]
        return np.asarray(scale * (_direction(queries) @ _direction(keys).swapaxes(-1, -2)))

    def _scores_error(self, heads: Heads, dtype: str) -> np.ndarray:
        if self.scale is None:
            return super()._scores_error(heads, dtype)
        query, key = (_rounded_direction(each, dtype) for each in heads[:2])
        scale = np.abs(np.asarray(self.scale, np.float64))[:, None, None]
        return np.asarray(scale * query.times(key.turned, 2.0 ** -SIGNIFICAND[dtype], SCALED).off)

    def _product_slopes(self, heads: Heads, by_scores: Rounded, dtype: str) -> tuple[Rounded, Rounded]:
        if self.scale is None:
            return super()._product_slopes(heads, by_scores, dtype)
        unit, factor = 2.0 ** -SIGNIFICAND[dtype], np.asarray(self.scale, np.float64)[:, None, None]
        query, key = (_rounded_direction(each, dtype) for each in heads[:2])
        by_query, by_key = product_slopes(query, key, by_scores, factor, unit)
        both = (heads.query, query, by_query), (heads.key, key, by_key)
        first, second = (direction_slope(*each, SHORTEST, unit) for each in both)
        return first, second

    def _windows(self, x: np.ndarray) -> Windows:
        return windows_of((x.shape[2], x.shape[3]), self.window, self.shift, self.grid)

    def _added(self, windows: Windows, images: int) -> np.ndarray:
        """What is added to the scores, (images * windows, heads, pixels, pixels)."""
        bias = np.asarray(self.table, np.float64)[relative_places(self.window)].transpose(2, 0, 1)
        return np.tile(bias + windows.mask[:, None], (images, 1, 1, 1))

    def _apart(self, x: np.ndarray, windows: Windows) -> np.ndarray:
        """The windows as images of one column."""
        ends = [(0, padded - n) for padded, n in zip(windows.padded, x.shape[2:], strict=True)]
        pixels = np.pad(x, ((0, 0), (0, 0), *ends)).reshape(*x.shape[:2], -1)[:, :, windows.places]
        return pixels.swapaxes(1, 2).reshape(-1, x.shape[1], windows.places.shape[1], 1)

    def _together(self, windowed: np.ndarray, x: np.ndarray, windows: Windows) -> np.ndarray:
        """The image of such windows."""
        pixels = windowed.reshape(len(x), -1, x.shape[1], windowed.shape[2]).swapaxes(1, 2)
        return pixels.reshape(*x.shape[:2], -1)[:, :, windows.back].reshape(x.shape)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((vectors**2).sum(-1, keepdims=True)))


def _direction(vectors: np.ndarray) -> np.ndarray:
    """Vectors divided by their lengths."""
    return np.asarray(vectors / np.maximum(_length(vectors), SHORTEST))


def _rounded_direction(vectors: Rounded, dtype: str) -> Rounded:
    return Rounded(_direction(vectors.true), _direction_error(*vectors, dtype))


def _direction_error(vectors: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
    """How far a direction may be off, if the vector is by up to `off`: in no component by more than to its opposite.

    The length changes by no more than that of `off`, and where squares underflow, by that of what they may lose.
    """
    size, direction, off = vectors.shape[-1], _direction(vectors), np.minimum(off, _FAR)
    changed = _length(off) + math.sqrt(size * least_normal(dtype))
    shortest = np.maximum(_length(vectors) - changed, SHORTEST)
    moved = np.minimum((off + np.abs(direction) * changed) / shortest, 1.0 + np.abs(direction))
    return np.asarray(moved + (size + _ROUNDINGS) * 2.0 ** -SIGNIFICAND[dtype] * (np.abs(direction) + moved))
