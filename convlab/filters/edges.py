"""Kernels that take derivatives: edges, directions, spots, textures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import GeometryError
from ..geometry.checks import shown
from .parameters import axis_of, binomial, direction, finite_number, gaussian_row, positive, reach, size_of


def derivative(order: int = 1, axis: int = 1) -> np.ndarray:
    """The d-th derivative by finite differences, along axis 0 (down the rows) or 1 (along a row).

    The kernel has order + 1 elements, the fewest possible: a kernel of n elements is a polynomial of degree n - 1 in
    the shift, and it maps polynomials of lower degree to zero only if it vanishes to order d where the shift is 1. Its
    elements are the binomial coefficients with alternating signs.

    Size: order + 1, in one row or column. Sum: 0, or 1 for order 0. Of integers.

    >>> derivative(1)
    array([[-1.,  1.]])
    >>> derivative(2)
    array([[ 1., -2.,  1.]])
    >>> derivative(2, axis=0).shape
    (3, 1)
    """
    order = size_of("order", order, 0, 1000)
    row = np.array([[(-1.0) ** (order - i) * math.comb(order, i) for i in range(order + 1)]])
    return row if axis_of(axis) == 1 else row.T


def edge(v: Sequence[float] | float, *, size: int = 3) -> np.ndarray:
    """A detector of edges orthogonal to a direction v: the derivative along v, smoothed across it.

    Size: `size`, odd and at least 3. Sum: 0. Separable along the axes.

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
    down, right = direction(v)
    size = _odd(size)
    smooth = binomial(size)
    slope = np.convolve(binomial(size - 2), [-0.5, 0.0, 0.5])
    return down * np.outer(slope, smooth) + right * np.outer(smooth, slope)


def sobel(axis: int = 1, *, size: int = 3) -> np.ndarray:
    """Sobel's derivative along axis 0 (down the rows) or 1 (along a row), smoothed by binomial weights across it.

    Size: `size`, odd and at least 3. Sum: 0. Separable, of integers. `scipy.ndimage.sobel`, OpenCV's `Sobel`; a ramp
    that brightens by 1 per pixel gives 2**(2 * size - 3), which `edge` divides by. Source: I. Sobel and G. Feldman, "A
    3x3 isotropic gradient operator for image processing", 1968.

    >>> sobel(1)
    array([[-1.,  0.,  1.],
           [-2.,  0.,  2.],
           [-1.,  0.,  1.]])
    """
    size = _odd(size_of("size", size, 3, 501))
    scale = 2.0 ** (size - 1)
    return _across(np.convolve(scale / 4 * binomial(size - 2), [-1.0, 0.0, 1.0]), scale * binomial(size), axis)


def scharr(axis: int = 1) -> np.ndarray:
    """Scharr's derivative along axis 0 or 1, whose response depends less on an edge's direction than Sobel's.

    Size: 3 x 3. Sum: 0. Separable, of integers. OpenCV's `Scharr`. Source: H. Scharr, "Optimal operators in digital
    image processing", 2000.

    >>> scharr(0)
    array([[ -3., -10.,  -3.],
           [  0.,   0.,   0.],
           [  3.,  10.,   3.]])
    """
    return _across(np.array([-1.0, 0.0, 1.0]), np.array([3.0, 10.0, 3.0]), axis)


def prewitt(axis: int = 1) -> np.ndarray:
    """Prewitt's derivative along axis 0 or 1, summed over three pixels across it.

    Size: 3 x 3. Sum: 0. Separable, of integers. `scipy.ndimage.prewitt`. Source: J. Prewitt, "Object enhancement and
    extraction", 1970.

    >>> prewitt(1)
    array([[-1.,  0.,  1.],
           [-1.,  0.,  1.],
           [-1.,  0.,  1.]])
    """
    return _across(np.array([-1.0, 0.0, 1.0]), np.ones(3), axis)


def laplacian(neighbours: int = 4) -> np.ndarray:
    """The second derivative down plus the one to the right; with 8 neighbours also the two diagonal ones.

    Size: 3 x 3. Sum: 0. Of integers. With 4: `scipy.ndimage.laplace`, OpenCV's `Laplacian` with ksize=1.

    >>> laplacian()
    array([[ 0.,  1.,  0.],
           [ 1., -4.,  1.],
           [ 0.,  1.,  0.]])
    >>> laplacian(8)
    array([[ 1.,  1.,  1.],
           [ 1., -8.,  1.],
           [ 1.,  1.,  1.]])
    """
    if neighbours not in (4, 8) or isinstance(neighbours, bool):
        raise GeometryError(f"neighbours: got {shown(neighbours)}, expected 4 or 8.", hint="4 is the usual one.")
    kernel = np.ones((3, 3))
    kernel[1, 1] = -float(neighbours)
    if neighbours == 4:
        kernel[::2, ::2] = 0.0
    return kernel


def gaussian_derivative(sigma: float = 1.0, order: Sequence[int] = (0, 1), *, truncate: float = 4.0) -> np.ndarray:
    """A derivative of the image blurred by a Gaussian: `scipy.ndimage.gaussian_filter` with its `order`.

    The kernel samples the Gaussian's own derivative: its Hermite polynomial times the Gaussian of sum 1.

    Size: that of `gaussian_blur(sigma, truncate=truncate)`. Sum: 1 for order (0, 0), else near 0. Separable.

    >>> gaussian_derivative(1.0, (0, 1)).shape
    (9, 9)

    Args:
        sigma: the standard deviation in pixels.
        order: how often it is derived down the rows and along them; each at most 10.
        truncate: how many standard deviations the kernel reaches.
    """
    sigma, truncate = positive("sigma", sigma), positive("truncate", truncate)
    if not isinstance(order, (tuple, list)) or len(order) != 2:
        raise GeometryError(f"order: got {shown(order)}, expected a pair of integers.", hint="order=(0, 1) is usual.")
    size = size_of("sigma", 2 * reach(sigma, truncate) + 1, 1)
    down, right = (_derived_row(sigma, size, size_of("order", times, 0, 10)) for times in order)
    return np.outer(down, right)


def _derived_row(sigma: float, size: int, order: int) -> np.ndarray:
    """The derivative of a Gaussian, as a row to correlate with: in the image's direction, not the convolution's."""
    x = np.arange(size) - (size - 1) / 2
    polynomial = np.polynomial.hermite_e.hermeval(x / sigma, [0] * order + [1]) / sigma**order
    return np.asarray(polynomial * gaussian_row(sigma, size))


def laplacian_of_gaussian(sigma: float = 1.0, *, truncate: float = 4.0) -> np.ndarray:
    """The Laplacian of the blurred image, which finds spots: `scipy.ndimage.gaussian_laplace`.

    Size: that of `gaussian_blur(sigma, truncate=truncate)`. Sum: near 0. Source: D. Marr and E. Hildreth, "Theory of
    edge detection", 1980.

    >>> laplacian_of_gaussian(1.0).round(2)[4]
    array([ 0.  ,  0.01,  0.04, -0.1 , -0.32, -0.1 ,  0.04,  0.01,  0.  ])
    """
    down, right = (gaussian_derivative(sigma, order, truncate=truncate) for order in ((2, 0), (0, 2)))
    return np.asarray(down + right)


def difference_of_gaussians(sigma: float = 1.0, larger: float | None = None, *, truncate: float = 4.0) -> np.ndarray:
    """The image blurred a little minus the image blurred more: `skimage.filters.difference_of_gaussians`.

    Size: that of the larger Gaussian. Sum: 0.

    >>> difference_of_gaussians(1.0).shape, difference_of_gaussians(1.0, 2.0).shape
    ((13, 13), (17, 17))

    Args:
        sigma: the standard deviation of the smaller Gaussian in pixels.
        larger: that of the larger one; by default 1.6 times as much, which is near the Laplacian of Gaussian.
        truncate: how many standard deviations each Gaussian reaches.
    """
    sigma, truncate = positive("sigma", sigma), positive("truncate", truncate)
    larger = 1.6 * sigma if larger is None else positive("larger", larger)
    if larger < sigma:
        raise GeometryError(f"larger: got {larger!r}, expected at least sigma={sigma!r}.", hint="swap the two.")
    inner, outer = (size_of("sigma", 2 * reach(each, truncate) + 1, 1) for each in (sigma, larger))
    small, large = (gaussian_row(each, size) for each, size in ((sigma, inner), (larger, outer)))
    small = np.pad(small, (outer - inner) // 2)
    return np.outer(small, small) - np.outer(large, large)


def gabor(
    wavelength: float = 4.0,
    angle: float = 0.0,
    *,
    sigma: float | None = None,
    aspect: float = 1.0,
    phase: float = 0.0,
    truncate: float = 3.0,
) -> np.ndarray:
    """A wave under a Gaussian, which answers to stripes of one width and direction: the real part of a Gabor filter.

    exp(-(a**2 + (aspect * b)**2) / (2 sigma**2)) * cos(2 pi a / wavelength + phase), a being the distance from the
    centre along the wave and b the one across it, as in OpenCV's `getGaborKernel`. Source: J. Daugman, "Uncertainty
    relation for resolution in space, spatial frequency, and orientation", 1985.

    Size: `truncate` times sigma, over `aspect` if that is less than 1, on each side. Sum: not 0 unless phase is 90.

    >>> gabor(4.0).shape, float(gabor(4.0).max())
    ((13, 13), 1.0)

    Args:
        wavelength: of the stripes, in pixels.
        angle: in which direction the wave goes, in degrees, counter-clockwise from "to the right" in the picture.
        sigma: the Gaussian's standard deviation in pixels; by default half a wavelength.
        aspect: how much narrower the Gaussian is across the wave.
        phase: in degrees; 90 makes it odd, for edges.
        truncate: how many standard deviations the kernel reaches.
    """
    wavelength, angle = positive("wavelength", wavelength), math.radians(finite_number("angle", angle))
    sigma = wavelength / 2 if sigma is None else positive("sigma", sigma)
    aspect, phase = positive("aspect", aspect), math.radians(finite_number("phase", phase))
    size = size_of("sigma", 2 * reach(sigma / min(aspect, 1.0), positive("truncate", truncate)) + 1, 1)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    down, right = -math.sin(angle), math.cos(angle)
    along, across = x * right + y * down, x * down - y * right
    envelope = np.exp(-0.5 * (along**2 + (aspect * across) ** 2) / sigma**2)
    wave: np.ndarray = envelope * np.cos(2 * math.pi * along / wavelength + phase)
    return wave


def _odd(size: int) -> int:
    size = size_of("size", size, 3)
    if size % 2 == 0:
        raise GeometryError(f"size: got {size}, expected an odd number.", hint="an even kernel has no centre.")
    return size


def _across(slope: np.ndarray, smooth: np.ndarray, axis: int) -> np.ndarray:
    """A derivative along an axis, smoothed along the other."""
    kernel = np.outer(smooth, slope)
    return kernel if axis_of(axis) == 1 else kernel.T
