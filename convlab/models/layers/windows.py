"""Attention in windows of an image, every other time in shifted ones: Swin, arXiv:2103.14030."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...geometry.geometry import Pair
from .attention import Attention

# What is added to the scores of pixels that the shift alone has brought into one window.
_APART = -100.0


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
def windows_of(size: Pair, window: Pair, shift: Pair) -> Windows:
    """The windows of images of a size, moved up and to the left by a shift.

    >>> windows_of((2, 3), (2, 2), (0, 1)).places
    array([[1, 2, 5, 6],
           [3, 0, 7, 4]])
    """
    padded = tuple(-(-n // k) * k for n, k in zip(size, window, strict=True))
    # Along an axis of one window there is nothing to shift.
    moved = [0 if k >= n else s for n, k, s in zip(padded, window, shift, strict=True)]
    rows, columns = ((np.arange(n) + s) % n for n, s in zip(padded, moved, strict=True))
    places = _cut(rows[:, None] * padded[1] + columns, window)
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

    Attributes:
        table: ((2 * rows - 1) * (2 * columns - 1), heads): the bias by how far apart two pixels are.
        window: its rows and columns.
        shift: of the windows.
        size: the only rows and columns of images that it is for; None for all.
    """

    kind = "window_attention"
    arrays = ("kernel", "bias", "out_kernel", "out_bias", "table")

    table: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))
    window: Pair = (1, 1)
    shift: Pair = (0, 0)
    size: Pair | None = field(default=None, compare=False)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        windows = self._windows(x)
        return self._together(self._attend(self._apart(x, windows), self._added(windows, len(x))), x, windows)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        windows = self._windows(x)
        apart = self._apart(x, windows), self._apart(off, windows)
        return self._together(self._attend_error(*apart, dtype, self._added(windows, len(x))), x, windows)

    def _windows(self, x: np.ndarray) -> Windows:
        return windows_of((x.shape[2], x.shape[3]), self.window, self.shift)

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
