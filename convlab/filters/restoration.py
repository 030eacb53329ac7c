"""Undoing a known blur: Wiener's filter and the Richardson-Lucy iteration.

The kernel is one of `corr2d`, as `learn_kernel` finds it. A point spread function, which is convolved, goes with
`convolution=True`.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from ..contract.framework import Framework
from ..correlation.arguments import as_array, unify
from ..correlation.corr2d import conv2d, corr2d
from ..correlation.images import planes_first, planes_last, warn_of_channels
from ..dtypes import COMPLEX, check_numeric
from ..errors import DataError, DTypeError, ShapeError, UnsupportedError
from ..geometry import names
from ..geometry.checks import boolean, integer, real, shown
from ..registry import owner, resolve
from .edges import laplacian

Tensor = TypeVar("Tensor")


def wiener(
    X: Tensor,
    K: Any,
    noise: float,
    *,
    convolution: bool = False,
    data_format: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """The image that was blurred to X by a known kernel: Wiener's filter with a smoothness prior.

    The blur is `corr2d(image, K, padding="same", origin=0, padding_mode="circular")`. What is returned minimises the
    squared error of the blurred image against X plus `noise` times the sum of squares of the image's Laplacian; in the
    Fourier domain it is conj(H) X / (abs(H)**2 + noise * abs(L)**2), H and L being the transforms of the kernel and the
    Laplacian. Source: B. R. Hunt, "A matrix theory proof of the discrete convolution theorem", 1971;
    `skimage.restoration.wiener(X, K, noise, clip=False)` is this with `convolution=True`.

    >>> from convlab import filters
    >>> image = np.zeros((8, 8))
    >>> image[3, 4] = 1.0
    >>> blurred = corr2d(image, filters.gaussian_blur(0.7), padding="same", padding_mode="circular")
    >>> bool(np.abs(wiener(blurred, filters.gaussian_blur(0.7), 1e-9) - image).max() < 1e-4)
    True

    Args:
        X: (..., H, W), or with `data_format="NHWC"` (..., H, W, C); integers are taken as float32.
        K: (h, w), a kernel with values: no gradient goes to it.
        noise: how much smoothness counts, 0 or more; about the noise's variance over the image's.
        convolution: whether the image was convolved with K instead of correlated.
        data_format: as in `corr2d`.
        backend: where to compute if X belongs to no framework.

    Returns:
        A tensor like X, with gradients.

    Raises:
        ShapeError: K isn't (h, w), or is larger than X.
        DataError: K's numbers aren't finite, or `noise` is 0 and K lets nothing of some frequency through.
    """
    framework, x, channels_last, kernel = _arguments(X, K, data_format, backend)
    strength = real(noise)
    if not 0 <= strength < math.inf:
        raise DataError(
            f"noise: got {shown(noise)}, expected a finite number of at least 0.", hint="noise=1e-3 is a start."
        )
    ops, shape = framework.ops, framework.ops.sizes(x)
    if not all(type(n) is int for n in shape[-2:]):
        raise UnsupportedError(
            f"X: got an image of size {shape[-2:]} while tracing, expected a known one.",
            hint="give the image's height and width to the tracer.",
        )
    if any(n < k for n, k in zip(shape[-2:], kernel.shape, strict=True)):
        raise ShapeError(
            f"K: got shape {kernel.shape}, larger than X's images of {shape[-2:]}, expected a kernel that fits.",
            hint="data_format='NHWC' if X's last axis is the channels; else X and K may be swapped.",
        )
    response = _response(kernel, (shape[-2], shape[-1]), strength)
    # A convolution's transform is the conjugate of a correlation's.
    response = response.conj() if boolean("convolution", convolution) else response
    dtype = ops.dtype(x)
    with ops.scope(dtype):
        wide = ops.cast(x, "float32") if dtype in ("float16", "bfloat16") else x
        y = ops.from_images(ops.filter_spectrum(ops.to_images(wide, "NCHW"), response), wide, "NCHW")
        y = ops.cast(y, dtype)
        return ops.native(planes_last(ops, y) if channels_last else y, X)  # type: ignore[no-any-return]


def _response(kernel: np.ndarray, size: tuple[int, int], noise: float) -> np.ndarray:
    """What Wiener's filter for a correlation does to each frequency of an image: (H, W // 2 + 1), complex."""
    blur, roughness = _transfer(kernel, size), _transfer(laplacian(), size)
    power = np.abs(blur) ** 2 + noise * np.abs(roughness) ** 2
    if power.min() <= 1e-30 * power.max():
        raise DataError(
            "K, noise: got a kernel that lets nothing of some frequency through, expected a larger noise.",
            hint="noise=1e-3 is a start.",
        )
    response: np.ndarray = blur / power
    return response


def _transfer(kernel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The transform of a kernel whose element size // 2 lies on the first pixel, on an image without edges."""
    impulse = np.zeros(size)
    h, w = kernel.shape
    rows, columns = (np.arange(n) - n // 2 for n in (h, w))
    np.add.at(impulse, (rows[:, None] % size[0], columns[None] % size[1]), kernel)
    return np.fft.rfft2(impulse)


def richardson_lucy(
    X: Tensor,
    K: Any,
    num_steps: int = 50,
    *,
    convolution: bool = False,
    data_format: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """The image that was blurred to X by a known kernel: where pixels count photons, ever likelier ones.

    Each step multiplies the image, 0.5 everywhere at first, by `corr2d`'s adjoint of X over the blurred image. It stays
    positive if X and K are. The blur is `corr2d(image, K, padding="same", origin=0)` by a kernel of sum 1. As in
    scikit-image the border isn't corrected for: within a kernel's reach of it the result is too dark or too bright, and
    many steps carry that inwards; pad X before by its reflection where that matters. Source: W. H. Richardson,
    "Bayesian-based iterative method of image restoration", 1972; L. B. Lucy, 1974. For odd kernels
    `skimage.restoration.richardson_lucy(X, K, num_steps, clip=False)` is this with `convolution=True`; for even ones it
    takes another adjoint, which moves the image.

    >>> richardson_lucy(np.full((5, 5), 0.5), [[1.0]], 3)[0]
    array([0.5, 0.5, 0.5, 0.5, 0.5])

    Args:
        X: (..., H, W), or with `data_format="NHWC"` (..., H, W, C), not negative; integers are taken as float32.
        K: (h, w), a kernel with values: no gradient goes to it.
        num_steps: how many steps to take.
        convolution: whether the image was convolved with K instead of correlated.
        data_format: as in `corr2d`.
        backend: where to compute if X belongs to no framework.

    Returns:
        A tensor like X, with gradients.

    Raises:
        ShapeError: K isn't (h, w).
        DataError: K's numbers aren't finite.
    """
    framework, x, channels_last, kernel = _arguments(X, K, data_format, backend)
    steps, ops = integer("num_steps", num_steps, 0), framework.ops
    dtype = ops.dtype(x)
    blur, adjoint = (conv2d, corr2d) if boolean("convolution", convolution) else (corr2d, conv2d)
    options: dict[str, Any] = {"padding": "same", "origin": 0, "data_format": "NCHW"}
    options["backend"] = backend if framework.adapter.wraps else framework.name
    with ops.scope(dtype):
        wide = ops.cast(x, "float32") if dtype in ("float16", "bfloat16") else x
        weights = ops.asarray(kernel, ops.dtype(wide) or "float32", like=wide)
        # It keeps a black pixel from being divided by zero.
        least = ops.number(1e-12, wide)
        image = ops.zeros(ops.sizes(wide), wide) + ops.number(0.5, wide)
        for _ in range(steps):
            ratio = wide / (blur(image, weights, **options) + least)
            image = image * adjoint(ratio, weights, **options)
        image = ops.cast(image, dtype)
        return ops.native(planes_last(ops, image) if channels_last else image, X)  # type: ignore[no-any-return]


def _arguments(X: Any, K: Any, data_format: str | None, backend: str | None) -> tuple[Framework, Any, bool, np.ndarray]:
    """The framework, X as (..., H, W), whether its channels came last, and the kernel in float64."""
    framework = resolve(backend, X=X)
    (x,), dtype = unify(framework, {"X": X}, floating=True)
    if dtype in COMPLEX:
        raise DTypeError(f"X: got dtype {dtype}, expected real images.", hint="restore the parts apart.")
    shape = framework.ops.sizes(x)
    if len(shape) < 2:
        raise ShapeError(f"X: got shape {shape}, expected (..., H, W).", hint="X[None] makes a one-row image.")
    kernel = _kernel(K)
    warn_of_channels(shape, kernel.shape, data_format)
    channels_last = names.data_format(data_format) == "NHWC" and len(shape) > 2
    return framework, planes_first(framework.ops, x) if channels_last else x, channels_last, kernel


def _kernel(K: Any) -> np.ndarray:
    """The kernel's values in float64."""
    whose = owner(K)
    if whose in (None, "numpy"):
        kernel = as_array("K", K)
    else:
        ops = resolve(None, K=K).ops
        if not ops.is_concrete(K):
            raise UnsupportedError("K: got a kernel that is being traced, expected values.", hint="close over it.")
        kernel = ops.to_numpy(K)
    check_numeric("K", kernel.dtype.name)
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise ShapeError(f"K: got shape {kernel.shape}, expected (h, w).", hint="take one channel's kernel.")
    kernel = kernel.astype(np.float64)
    if not np.isfinite(kernel).all():
        raise DataError("K: got numbers that are nan or inf, expected finite ones.", hint="look at how K was made.")
    return kernel
