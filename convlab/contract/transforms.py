"""`Transforms`: what the algorithm "fft" needs of a backend."""

from __future__ import annotations

import numpy as np

from ..geometry.geometry import Pair
from .arrays import Arrays, T, lacking


class Transforms(Arrays[T]):
    """Fourier transforms, and tiles of images."""

    def rfft2(self, x: T, size: Pair) -> T:
        """The transform of a real x over its last two axes, zeros added up to `size`; see `numpy.fft.rfft2`."""
        raise lacking("rfft2")

    def irfft2(self, spectrum: T, size: Pair) -> T:
        """The real array of `size` whose transform `spectrum` is; see `numpy.fft.irfft2`."""
        raise lacking("irfft2")

    def conj(self, x: T) -> T:
        """The complex conjugate."""
        raise lacking("conj")

    def filter_spectrum(self, x: T, response: np.ndarray) -> T:
        """The images x (N, C, H, W), real, each frequency multiplied by a response (H, W // 2 + 1), complex."""
        height, width = self.sizes(x)[2:]
        dtype = "complex128" if self.dtype(x) == "float64" else "complex64"
        factors = self.asarray(response, dtype, x)
        return self.irfft2(self.rfft2(x, (height, width)) * factors, (height, width))

    def tiles(self, x: T, size: Pair, step: Pair) -> T:
        """(N, C, H, W) cut into overlapping tiles: (N, C, rows, columns, *size), a tile each `step`."""
        *_, height, width = self.sizes(x)
        down, right = ((n - t) // s + 1 for n, t, s in zip((height, width), size, step, strict=True))
        rows = [self.part(x, i * step[0], size[0], 2) for i in range(down)]
        lines = [self.stack([self.part(row, j * step[1], size[1], 3) for j in range(right)], 2) for row in rows]
        return self.stack(lines, 2)
