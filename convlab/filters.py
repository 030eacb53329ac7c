"""Well-known kernels: edges, derivatives, blurs. Each is a NumPy float64 array of shape (h, w).

Pass one to `corr2d` beside an image of any framework; it takes the image's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from .errors import GeometryError
from .geometry.checks import integer, real, shown


def derivative(order: int = 1, axis: int = 1) -> np.ndarray:
    """The d-th derivative by finite differences, along axis 0 (down the rows) or 1 (along a row).

    The kernel has order + 1 elements, the fewest possible: a kernel of n elements is a polynomial of degree n - 1 in
    the shift, and it maps polynomials of lower degree to zero only if it vanishes to order d where the shift is 1. Its
    elements are the binomial coefficients with alternating signs.

    >>> derivative(1)
    array([[-1.,  1.]])
    >>> derivative(2)
    array([[ 1., -2.,  1.]])
    >>> derivative(2, axis=0).shape
    (3, 1)
    """
    order = _size("order", order, 0, 1000)
    row = np.array([[(-1.0) ** (order - i) * math.comb(order, i) for i in range(order + 1)]])
    return row if _axis(axis) == 1 else row.T


def edge(v: Sequence[float] | float, *, size: int = 3) -> np.ndarray:
    """A detector of edges orthogonal to a direction v: the derivative along v, smoothed across it.

    v is a pair (down, right), in the order of the array's axes, or an angle in degrees, counter-clockwise from
    "to the right" as one sees the picture. The response is positive where the image brightens along v; a ramp that
    brightens by 1 per pixel along v gives 1, and an edge parallel to v gives 0.

    >>> edge((0, 1))
    array([[-0.125,  0.   ,  0.125],
           [-0.25 ,  0.   ,  0.25 ],
           [-0.125,  0.   ,  0.125]])
    >>> bool(np.allclose(edge(90), edge((-1, 0))))
    True

    For size 3 it is Sobel's operator over 8, steered: a derivative along v is v[0] times the one down plus v[1]
    times the one to the right (Freeman and Adelson, "The Design and Use of Steerable Filters", 1991).
    """
    down, right = _direction(v)
    size = _size("size", size, 3)
    if size % 2 == 0:
        raise GeometryError(f"size: got {size}, expected an odd number.", hint="an even kernel has no centre.")
    smooth = _binomial(size)
    slope = np.convolve(_binomial(size - 2), [-0.5, 0.0, 0.5])
    return down * np.outer(slope, smooth) + right * np.outer(smooth, slope)


def box_blur(size: int = 3) -> np.ndarray:
    """The mean of size x size pixels.

    >>> box_blur(2)
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    size = _size("size", size, 1)
    return np.full((size, size), 1.0 / size**2)


def gaussian_blur(sigma: float = 1.0, *, size: int | None = None) -> np.ndarray:
    """A Gaussian of standard deviation `sigma` in pixels, normalised to sum 1; by default it reaches 4 sigma far.

    >>> gaussian_blur(1.0).shape, float(gaussian_blur(1.0).sum().round(12))
    ((9, 9), 1.0)
    """
    sigma = _finite("sigma", sigma)
    if sigma <= 0:
        raise GeometryError(f"sigma: got {sigma!r}, expected a positive number.", hint="sigma is in pixels.")
    # As in scipy.ndimage.gaussian_filter, the reach is four sigma, rounded to the nearest pixel.
    size = _size("size", 2 * int(min(4 * sigma, 1e15) + 0.5) + 1 if size is None else size, 1)
    distance = np.abs(np.arange(size) - (size - 1) / 2)
    # If sigma is tiny, the exponent overflows for all pixels but the nearest, whose weights then become 0.
    with np.errstate(over="ignore"):
        row = np.exp(-0.5 * (distance**2 - distance.min() ** 2) / sigma / sigma)
    row /= row.sum()
    return np.outer(row, row)


def sharpen(amount: float = 1.0) -> np.ndarray:
    """The image plus `amount` times its difference from the mean of the four neighbours.

    >>> sharpen(1.0)
    array([[ 0.  , -0.25,  0.  ],
           [-0.25,  2.  , -0.25],
           [ 0.  , -0.25,  0.  ]])
    """
    amount = _finite("amount", amount)
    return np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]) - amount / 4 * laplacian()


def laplacian() -> np.ndarray:
    """The second derivative down plus the second derivative to the right.

    >>> laplacian()
    array([[ 0.,  1.,  0.],
           [ 1., -4.,  1.],
           [ 0.,  1.,  0.]])
    """
    return np.array([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])


# The filters that `parse` knows: their function, the parameter's type and its description.
_SPECS: dict[str, tuple[Callable[..., np.ndarray], type[float] | type[int] | None, str]] = {
    "edge": (edge, float, "angle in degrees"),
    "derivative": (derivative, int, "order"),
    "box": (box_blur, int, "size in pixels"),
    "gaussian": (gaussian_blur, float, "sigma in pixels"),
    "sharpen": (sharpen, float, "amount"),
    "laplacian": (laplacian, None, ""),
}


def parse(text: str) -> np.ndarray:
    """A filter from its name and parameter, as on the command line.

    >>> parse("derivative:2")
    array([[ 1., -2.,  1.]])

    Raises:
        GeometryError: an unknown name, or a parameter that isn't a number; the hint lists the filters.
    """
    name, colon, parameter = text.partition(":")
    known = ", ".join(f"{name}:<{what}>" if what else name for name, (_, _, what) in _SPECS.items())
    if name not in _SPECS:
        raise GeometryError(f"filter: got {shown(text)}, expected one of {known}.", hint="edge:45 is an example.")
    make, number, what = _SPECS[name]
    if not colon and name != "edge":
        return make()
    expected = f"{name}:<{what}>" if what else name
    try:
        if number is None:
            raise ValueError("the filter has no parameter")
        value = number(parameter)
    except ValueError:
        raise GeometryError(f"filter: got {shown(text)}, expected {expected}.", hint=f"there are {known}.") from None
    return make(value)


def _size(name: str, value: int, minimum: int, maximum: int = 4096) -> int:
    """A kernel's size or order within bounds, or a `GeometryError` that names the argument."""
    size = integer(name, value, minimum)
    if size > maximum:
        raise GeometryError(
            f"{name}: got a kernel of {name} {size}, expected at most {maximum}.",
            hint="shrink the image instead of growing the kernel.",
        )
    return size


def _finite(name: str, value: float) -> float:
    """A finite float, or a `GeometryError` that names the argument."""
    number = real(value)
    if not math.isfinite(number):
        raise GeometryError(f"{name}: got {shown(value)}, expected a finite number.", hint=f"{name}=1 is usual.")
    return number


def _binomial(size: int) -> np.ndarray:
    """A smoothing kernel: binomial coefficients, scaled to the sum 1."""
    return np.array([math.comb(size - 1, i) / (1 << (size - 1)) for i in range(size)])


def _axis(axis: int) -> int:
    """The axis as 0 or 1, or a `GeometryError`."""
    if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool) or axis not in (0, 1, -1, -2):
        raise GeometryError(f"axis: got {shown(axis)}, expected 0 (down) or 1 (to the right).", hint="axis=1 is usual.")
    return axis % 2


def _direction(v: Sequence[float] | float) -> tuple[float, float]:
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
