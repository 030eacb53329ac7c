"""Kernels that blur or sharpen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import GeometryError
from .edges import laplacian
from .parameters import each_axis, finite_number, gaussian_row, positive, reach, size_of


def box_blur(size: int | Sequence[int] = 3) -> np.ndarray:
    """The mean of size x size pixels, or of (rows, columns).

    Size: as given. Sum: 1. Separable. `scipy.ndimage.uniform_filter`, OpenCV's `boxFilter` and `blur`.

    >>> box_blur(2)
    array([[0.25, 0.25],
           [0.25, 0.25]])
    >>> box_blur((1, 4))
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    h, w = _sizes(size)
    return np.full((h, w), 1.0 / (h * w))


def gaussian_blur(
    sigma: float | Sequence[float] = 1.0,
    *,
    size: int | Sequence[int] | None = None,
    truncate: float = 4.0,
    angle: float = 0.0,
) -> np.ndarray:
    """A Gaussian of standard deviation `sigma` in pixels; a pair (down, right) blurs one way more than the other.

    Size: `truncate` times sigma on each side, as in `scipy.ndimage.gaussian_filter`; or `size` rows and columns, as in
    OpenCV's `GaussianBlur`. Sum: 1. Separable, unless it is turned.

    >>> gaussian_blur(1.0).shape, float(gaussian_blur(1.0).sum().round(12))
    ((9, 9), 1.0)
    >>> gaussian_blur((1.0, 2.0)).shape
    (9, 17)

    Args:
        sigma: the standard deviation, or (down, right).
        size: the kernel's rows and columns, an int or a pair, instead of what `truncate` gives.
        truncate: how many standard deviations the kernel reaches.
        angle: by how many degrees the Gaussian is turned, counter-clockwise as one sees the picture.
    """
    down, right = each_axis("sigma", sigma)
    truncate, angle = positive("truncate", truncate), finite_number("angle", angle)
    if angle % 180 and down != right:
        return _turned(down, right, size, truncate, math.radians(angle))
    if size is None:
        size = 2 * reach(down, truncate) + 1, 2 * reach(right, truncate) + 1
    rows, columns = _sizes(size)
    return np.outer(gaussian_row(down, rows), gaussian_row(right, columns))


def _sizes(size: int | Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a size, an int or a pair."""
    rows, columns = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)
    return size_of("size", rows, 1), size_of("size", columns, 1)  # type: ignore[arg-type]


def _turned(down: float, right: float, size: int | Sequence[int] | None, truncate: float, angle: float) -> np.ndarray:
    """exp(-(a**2 / right**2 + b**2 / down**2) / 2), a and b being the distances along the turned axes; sum 1."""
    h, w = _sizes(2 * reach(max(down, right), truncate) + 1 if size is None else size)
    y, x = np.arange(h)[:, None] - (h - 1) / 2, np.arange(w)[None] - (w - 1) / 2
    along, across = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    exponent = (along / right) ** 2 + (across / down) ** 2
    kernel = np.exp(-0.5 * (exponent - exponent.min()))
    normalised: np.ndarray = kernel / kernel.sum()
    return normalised


def motion_blur(length: float, angle: float = 0.0) -> np.ndarray:
    """What a camera sees that moves straight on by `length` pixels while it exposes.

    Each pixel within one pixel of the line has the weight max(0, 1 - distance to the line), over their sum: MATLAB's
    `fspecial('motion')`. The line is length - 1 long, so that 5 at angle 0 are five equal pixels.

    Size: odd, as large as the line needs. Sum: 1. Separable at multiples of 90 degrees.

    >>> motion_blur(5)
    array([[0.2, 0.2, 0.2, 0.2, 0.2]])

    Args:
        length: in pixels, at least 1.
        angle: in degrees, counter-clockwise from "to the right" as one sees the picture.
    """
    length, angle = finite_number("length", length), math.radians(finite_number("angle", angle))
    if length < 1:
        raise GeometryError(f"length: got {length!r}, expected at least 1.", hint="length is in pixels.")
    half = (length - 1) / 2
    n = size_of("length", 2 * math.ceil(half) + 1, 1)
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    down, right = -math.sin(angle), math.cos(angle)
    along = np.clip(x * right + y * down, -half, half)
    distance = np.hypot(x - along * right, y - along * down)
    # What rounding leaves of a weight of zero is none.
    kernel = np.where(distance < 1 - 1e-9, 1 - distance, 0.0)
    rows, columns = kernel.any(1), kernel.any(0)
    trimmed = kernel[rows][:, columns]
    return np.asarray(trimmed / trimmed.sum())


def sharpen(amount: float = 1.0) -> np.ndarray:
    """The image plus `amount` times its difference from the mean of the four neighbours.

    Size: 3 x 3. Sum: 1.

    >>> sharpen(1.0)
    array([[ 0.  , -0.25,  0.  ],
           [-0.25,  2.  , -0.25],
           [ 0.  , -0.25,  0.  ]])
    """
    amount = finite_number("amount", amount)
    return np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]) - amount / 4 * laplacian()


def unsharp_mask(sigma: float = 1.0, amount: float = 1.0, *, truncate: float = 4.0) -> np.ndarray:
    """The image plus `amount` times its difference from itself blurred: `skimage.filters.unsharp_mask`, unclipped.

    Size: that of `gaussian_blur(sigma, truncate=truncate)`. Sum: 1.

    >>> kernel = unsharp_mask(1.0, 0.5)
    >>> kernel.shape, bool(abs(kernel.sum() - 1) < 1e-12)
    ((9, 9), True)
    """
    amount, blur = finite_number("amount", amount), gaussian_blur(sigma, truncate=truncate)
    kernel = -amount * blur
    kernel[blur.shape[0] // 2, blur.shape[1] // 2] += 1 + amount
    return kernel
