"""How the compiled kernels cut an image into tiles, and where its border comes from; nothing here needs numba."""

from __future__ import annotations

import functools
import importlib.util
import math

import numpy as np

from ..geometry.geometry import Geometry, PaddingMode, Pair, border_index

# The sizes of a tile, and what a point costs in a tile of that size, relative to the least.
_SIZES = {32: 1.3, 64: 1.1, 128: 1.0, 256: 1.2, 512: 1.5}


@functools.cache
def numba_installed() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def fits_tiles(kernel: Pair) -> bool:
    """Whether a kernel of so many rows and columns leaves room in a tile of the compiled FFT."""
    return max(kernel) <= 256


def fits_fft(geometry: Geometry) -> bool:
    """Whether the compiled FFT can do this: no strides, no dilation, and a kernel that fits its tiles."""
    return geometry.stride == (1, 1) == geometry.dilation and fits_tiles(geometry.kernel_size)


@functools.lru_cache(1024)
def tile(images: int, result: Pair, kernel: Pair) -> tuple[int, float]:
    """The rows (and columns) of the best tile for the FFT, and the work: points times log2(points) of all transforms.

    `result` and `kernel` are rows and columns of one image's result and of the kernel.
    """

    def work(size: int) -> float:
        step = size - max(kernel) + 1
        pairs = -(-images * -(-result[0] // step) * -(-result[1] // step) // 2)
        return (1 + 2 * pairs) * size**2 * math.log2(size) * _SIZES[size]

    size = min((size for size in _SIZES if size >= 1.5 * max(kernel)), key=work)
    return size, work(size)


def phase_by_phase(right: np.ndarray, step: int, phase: int) -> np.ndarray:
    """The columns of a padded row in the order in which a stride's phases follow each other, each of so many columns.

    Neighbours in the result are then neighbours in the row; a column beyond the row is -1, a zero.
    """
    padded = np.pad(right, (0, phase * step - len(right)), constant_values=-1)
    return np.ascontiguousarray(padded.reshape(phase, step).T).ravel()


def phase_offsets(columns: np.ndarray, step: int, phase: int) -> np.ndarray:
    """Where columns of a padded row stand in `phase_by_phase`."""
    offsets: np.ndarray = columns % step * phase + columns // step
    return offsets


def border_indices(n: int, pads: Pair, mode: PaddingMode) -> np.ndarray:
    """For each position of a padded axis, the index of the pixel, out of n, that stands there; -1 for a zero."""
    before, after = pads
    if mode == "zeros":
        return np.pad(np.arange(n), pads, constant_values=-1)
    return np.array([border_index(i, n, mode) for i in range(-before, n + after)], np.int64)
