"""Checks on the parameters of filters, and rows that several filters are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import GeometryError
from ..geometry.checks import integer, real, shown


def size_of(name: str, value: int, minimum: int, maximum: int = 4096) -> int:
    """A kernel's size or order within bounds, or a `GeometryError` that names the argument."""
    size = integer(name, value, minimum)
    if size > maximum:
        raise GeometryError(
            f"{name}: got a kernel of {name} {size}, expected at most {maximum}.",
            hint="shrink the image instead of growing the kernel.",
        )
    return size


def finite_number(name: str, value: float) -> float:
    """A finite float, or a `GeometryError` that names the argument."""
    number = real(value)
    if not math.isfinite(number):
        raise GeometryError(f"{name}: got {shown(value)}, expected a finite number.", hint=f"{name}=1 is usual.")
    return number


def axis_of(axis: int) -> int:
    """The axis as 0 or 1, or a `GeometryError`."""
    if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool) or axis not in (0, 1, -1, -2):
        raise GeometryError(f"axis: got {shown(axis)}, expected 0 (down) or 1 (to the right).", hint="axis=1 is usual.")
    return axis % 2


def direction(v: Sequence[float] | float) -> tuple[float, float]:
    """A direction as (down, right) of length 1, or a `GeometryError`."""
    try:
        angle = math.radians(real(v)) if np.isscalar(v) else None
        down, right = map(real, v) if angle is None else (-math.sin(angle), math.cos(angle))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        down = right = math.nan
    length = math.hypot(down, right)
    if not 0 < length < math.inf:
        raise GeometryError(
            f"v: got {shown(v)}, expected a pair (down, right) of finite numbers, not both 0, or an angle in degrees.",
            hint="edge((0, 1)) finds vertical edges.",
        )
    return down / length, right / length


def binomial(size: int) -> np.ndarray:
    """A smoothing kernel: binomial coefficients, scaled to the sum 1."""
    return np.array([math.comb(size - 1, i) / (1 << (size - 1)) for i in range(size)])


def positive(name: str, value: float) -> float:
    """A positive finite float, or a `GeometryError` that names the argument."""
    number = finite_number(name, value)
    if number <= 0:
        raise GeometryError(f"{name}: got {value!r}, expected a positive number.", hint=f"{name} is in pixels.")
    return number


def each_axis(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    """A positive number for the rows and one for the columns, of one number or a pair."""
    down, right = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)
    return positive(name, down), positive(name, right)  # type: ignore[arg-type]


def reach(sigma: float, truncate: float) -> int:
    """The pixels on each side of a Gaussian's centre: `truncate` times sigma, rounded to the nearest, as in SciPy."""
    return int(min(truncate * sigma, 1e15) + 0.5)


def gaussian_row(sigma: float, size: int) -> np.ndarray:
    """A sampled Gaussian of so many pixels, with the sum 1."""
    distance = np.abs(np.arange(size) - (size - 1) / 2)
    # If sigma is tiny, the exponent overflows for all pixels but the nearest, whose weights then become 0.
    with np.errstate(over="ignore"):
        row = np.exp(-0.5 * (distance**2 - distance.min() ** 2) / sigma / sigma)
    normalised: np.ndarray = row / row.sum()
    return normalised
