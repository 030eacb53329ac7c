"""The FFT on the memory of CPU tensors, for kernels of any size: compiled, or for the largest by SciPy's transforms."""

from __future__ import annotations

import numpy as np

from ..algorithms import fourier
from ..compiled import kernels, tiling
from ..geometry.geometry import Geometry
from ..reference import ops as reference


def fft_on_host(x: np.ndarray, k: np.ndarray, geometry: Geometry, y: np.ndarray) -> np.ndarray:
    """`kernels.correlate` by the FFT, for stride and dilation 1, written to y."""
    if tiling.fits_tiles(geometry.kernel_size):
        return kernels.correlate(x, k, geometry, "fft", y)
    with reference.scope(None):
        y[...] = fourier.fft_correlation(reference, x, k, geometry)
    return y if np.isfinite(y).all() else kernels.correlate(x, k, geometry, "direct", y)


def fft_gradient_on_host(x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
    """`kernels.kernel_gradient` by the FFT, for stride and dilation 1."""
    if tiling.fits_tiles(geometry.kernel_size):
        return kernels.kernel_gradient(x, dy, geometry, "fft")
    with reference.scope(None):
        gradient = np.ascontiguousarray(fourier.fft_kernel_gradient(reference, x, dy, geometry))
    return gradient if np.isfinite(gradient).all() else kernels.kernel_gradient(x, dy, geometry)
