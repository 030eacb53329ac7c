"""How far a correct result may be from the true one: forward rounding bounds, computed from the data.

A sum of n products in floating point, added up in any order and with or without fused multiply-add, satisfies

    |fl(y) - y| <= gamma_n * sum |x_i| |k_i|,    gamma_n = n u / (1 - n u),

u being the unit roundoff (2**-24 for float32). Source: N. J. Higham, *Accuracy and Stability of Numerical Algorithms*,
2nd ed. (SIAM 2002), §3.1, equations (3.3) to (3.5) and lemma 3.1. Each gradient is such a sum too, with an n of its
own. Where the dtype is so narrow that n u counts, n is the number of products that aren't zero: adding zero rounds
nothing. To it comes what underflow may take: the smallest normal number for each product, since some frameworks flush
subnormal numbers to zero.

A sum computed in float64 and then rounded once to a narrower dtype, as `reproducible=True` does, satisfies

    |fl(y) - y| <= u |y| + (1 + u) gamma_n(float64) * sum |x_i| |k_i|

(the same lemma for the sum, and theorem 2.2 there for the rounding).

A correlation by the fast Fourier transform of n points has an error that is small beside the norms of X and K only:

    ||fl(y) - y||_2 <= (3 log2(n) eta + 4 u) ||x||_2 ||k||_1,    eta = 8 u

(theorem 24.2 there for each of three transforms, eta being what it has for radix 2 with twiddle factors correct to 2 u;
the spectrum of k is nowhere above ||k||_1). All this holds while nothing overflows: where the
sum of magnitudes does (`overflows`), infinities and NaN are right as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from ..correlation.matrix import im2col
from ..dtypes import SIGNIFICAND
from ..geometry.checks import choice
from ..geometry.names import data_format
from ..geometry.options import GeometryOptions
from .oracle import CanonicalCall, Gradients, computed_in, oracle, oracle_gradients, repeats, wide

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


_NARROW = ("float16", "bfloat16")
# The exponents of the smallest normal numbers.
_SMALLEST = {"float16": -14, "bfloat16": -126, "float32": -126, "float64": -1022}
LARGEST = {
    "float16": 65504.0,
    "bfloat16": 255 * 2.0**120,
    "float32": float(np.finfo(np.float32).max),
    "float64": float(np.finfo(np.float64).max),
}


def gamma(n: int, dtype: str) -> float:
    """Higham's gamma_n = n u / (1 - n u); infinite where n u reaches 1.

    >>> gamma(4, "float32") == 4 * 2**-24 / (1 - 4 * 2**-24)
    True
    """
    nu = n * 2.0 ** -SIGNIFICAND[dtype]
    return nu / (1 - nu) if nu < 1 else np.inf


ALGORITHMS = ("direct", "reproducible", "fft")


def error_bound(
    X: ArrayLike,
    K: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    algorithm: str = "direct",
    **geometry: Unpack[GeometryOptions],
) -> np.ndarray:
    """For each element of `corr2d(X, K, bias=bias)`: how far rounding may take it from the true value.

    Args:
        X: the image, with the values that the computation started from.
        K: the kernel, likewise.
        bias: the bias, likewise.
        dtype: the dtype of the computation; by default the one that corr2d computes them in.
        algorithm: "direct", sums of products in any order; "reproducible", such sums in float64 and one rounding;
            "fft", the fast Fourier transform.
        geometry: corr2d's stride, padding, … .

    Returns:
        float64 array of the result's shape. 0 where integers are computed exactly.
    """
    choice("algorithm", algorithm, ALGORITHMS)
    dtype = computed_in(dtype, X, K, bias)
    factors, positive = (magnitude(X), magnitude(K)), _positive(geometry)
    total = oracle(*factors, bias=None if bias is None else magnitude(bias), **positive)
    if dtype == "int64":
        return np.zeros_like(total)
    n = factors[1].size // _outputs(factors[1].shape, geometry.get("data_format"))
    if dtype in _NARROW:
        n = int(oracle(*(np.sign(each) for each in factors), **_positive(geometry, 1.0)).max(initial=0))
    n += 2  # The bias is one more term, and rounding a wider sum to dtype counts as another.
    value = abs(geometry.get("padding_value", 0.0))
    largest = *factors, np.array(value)
    # The value of a border is rounded, too.
    border = oracle(0 * factors[0], factors[1], **positive) * 2.0 ** -SIGNIFICAND[dtype] if value else 0.0
    if algorithm == "direct":
        return sum_bound(total, n, dtype, *largest) + border
    if algorithm == "fft":
        padded = CanonicalCall(*factors, positive).padded()
        return transform_bound(total, padded, factors[1], padded.shape[2:], dtype) + border
    return rounded_sum_bound(oracle(X, K, bias=bias, **geometry), total, n, dtype, *largest) + border


def rounded_sum_bound(truth: np.ndarray, total: np.ndarray, n: int, dtype: str, *factors: Any) -> np.ndarray:
    """The bound of a sum of n products in float64 that is rounded once to a dtype, as `reproducible=True` has it.

    Args:
        truth: the true sum.
        total: the sum of its terms' magnitudes.
        n: the number of terms.
        dtype: the result's dtype.
        factors: arrays of the magnitudes of the products' factors.
    """
    if dtype == "float64":
        return np.asarray(sum_bound(total, n, dtype, *factors) + _underflow(n, -960, *factors))
    # Half types are rounded to float32 first.
    unit = 2.0 ** -SIGNIFICAND[dtype] + (2.0**-24 if dtype != "float32" else 0.0)
    # Only the subnormal numbers of float32 count as zero; a result may be rounded to a subnormal one of float16.
    underflow = _underflow(n, -126, *factors) + (2.0**-24 if dtype == "float16" else 0.0)
    return np.asarray(unit * np.abs(truth) + (1 + unit) * sum_bound(total, n, "float64", *factors) + underflow)


def transform_bound(total: np.ndarray, x: np.ndarray, k: np.ndarray, size: tuple[int, ...], dtype: str) -> np.ndarray:
    """The bound of the correlation of an image x of magnitudes, which fills `size`, with k by Fourier transforms."""
    # A tile may be larger than the image.
    points = max(4 * size[0] * size[1], 2**18)
    # Half types are computed in float32.
    unit = 2.0 ** -SIGNIFICAND[max(dtype, "float32", key=lambda name: SIGNIFICAND[name])]
    norms = float(np.linalg.norm(x)) * float(np.abs(k).sum())
    return np.asarray(sum_bound(total, 2, dtype, x, k) + (24 * math.log2(points) + 4) * unit * norms)


def overflows(
    X: ArrayLike,
    K: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    **geometry: Unpack[GeometryOptions],
) -> np.ndarray:
    """Where the magnitudes that an element of `corr2d(X, K, bias=bias)` adds up leave the dtype it is computed in."""
    dtype = computed_in(dtype, X, K, bias)
    total = oracle(magnitude(X), magnitude(K), bias=None if bias is None else magnitude(bias), **_positive(geometry))
    return np.asarray(total >= LARGEST.get(dtype, np.inf))


def worst_ratio(found: np.ndarray, true: np.ndarray, bound: Any) -> float:
    """The largest error as a fraction of its bound, 0 where there is none and infinite where an array isn't finite.

    >>> worst_ratio(np.array([1.0, 2.5]), np.array([1.0, 2.0]), np.array([0.0, 2.0]))
    0.25
    """
    return float(error_ratios(found, true, bound).max(initial=0.0))


def error_ratios(found: np.ndarray, true: np.ndarray, bound: Any, overflow: Any = False) -> np.ndarray:
    """Each error as a fraction of its bound; infinite where the bound is 0, or where one is NaN or infinite alone.

    Where `overflow` holds, what isn't finite is right.
    """
    result = np.asarray(found, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs(result - true)
        right = (result == true) | (np.isnan(result) & np.isnan(true)) | (~np.isfinite(result) & overflow)
        return np.nan_to_num(np.where(right, 0.0, error / bound), nan=np.inf, posinf=np.inf)


def gradient_bounds(
    X: ArrayLike, K: ArrayLike, dY: ArrayLike, dtype: str, **geometry: Unpack[GeometryOptions]
) -> Gradients:
    """How far rounding may take the gradients of sum(dY * corr2d(X, K, bias=bias)) by X, K and the bias."""
    x, k, dy = map(magnitude, (X, K, dY))
    totals = oracle_gradients(x, k, dy, **_positive(geometry))
    call = CanonicalCall(x, k, geometry)
    lowered, outputs = call.border, call.k.shape[0]
    # A padding mode repeats pixels, and the gradients of the repetitions are added up as well.
    sides = zip(call.x.shape[2:], lowered.padding, strict=True)
    down, right = (repeats(n, pads, lowered.padding_mode) for n, pads in sides)
    h, w = lowered.kernel_size
    terms = [h * w * (outputs // lowered.groups) * down * right, dy.size // outputs, dy.size // outputs]
    if dtype in _NARROW:
        products = oracle_gradients(*(np.sign(each) for each in (x, k, dy)), **_positive(geometry, 1.0))
        terms = [int(each.max(initial=0)) for each in products]
    # The value of a border is rounded, too.
    value = abs(geometry.get("padding_value", 0.0))
    return Gradients(
        sum_bound(totals.X, terms[0] + 1, dtype, k, dy),
        sum_bound(totals.K, terms[1] + (2 if value else 1), dtype, x, dy, np.array(value)),
        sum_bound(totals.bias, terms[2] + 1, dtype, dy, np.ones(1)),
    )


class DescentPath(NamedTuple):
    """Plain gradient descent in float64, and how far a descent in a narrower dtype may be from it.

    Attributes:
        kernel, losses: the kernel that it ends with, and the loss before each step.
        kernel_bound: a bound on the 2-norm of the kernel's error, and so on each element's.
        loss_bounds: a bound on the error of each loss.
    """

    kernel: np.ndarray
    losses: np.ndarray
    kernel_bound: float
    loss_bounds: np.ndarray


def descent(
    X: ArrayLike, Y: ArrayLike, init: ArrayLike, *, lr: float, num_steps: int, dtype: str = "float32"
) -> DescentPath:
    """The path of `learn_kernel(X, Y, init.shape, init=init, lr=lr, num_steps=num_steps)`.

    A step is the linear map K -> (I - 2 lr A) K + 2 lr b, A the Gram matrix of X's windows. An error made before it is
    multiplied by at most the map's 2-norm; the step adds its own rounding, bounded as in `gradient_bounds`.
    """
    X, Y, kernel = wide(X).astype(np.float64), wide(Y).astype(np.float64), np.array(init, np.float64)
    windows = np.moveaxis(np.asarray(im2col(X, kernel.shape, backend="numpy")), -2, 0).reshape(kernel.size, -1)
    growth = float(np.abs(1 - 2 * lr * np.linalg.eigvalsh(windows @ windows.T)).max())
    lengths = np.linalg.norm(windows, axis=0).reshape(Y.shape)
    unit, error = 2.0 ** -SIGNIFICAND[dtype], 2.0 ** -SIGNIFICAND[dtype] * float(np.linalg.norm(kernel))
    losses, loss_bounds = [], []
    for _ in range(num_steps):
        residual = oracle(X, kernel) - Y
        # Rounding adds this to the residual, and the error of the kernel so far adds to it.
        added = error_bound(X, kernel, dtype=dtype) + 2 * unit * (np.abs(residual) + np.abs(Y))
        off = added + error * lengths
        terms = Y.size + 2
        loss = float((residual**2).sum())
        losses.append(loss)
        loss_bounds.append(float((2 * np.abs(residual) * off + off**2).sum()) + gamma(terms, dtype) * 2 * loss)
        gradient = oracle_gradients(X, kernel, 2 * residual).K
        magnitude = np.abs(windows) @ np.abs(2 * residual).ravel()
        own = gamma(terms, dtype) * magnitude + 2 * np.abs(windows) @ added.ravel()
        stepped = kernel - lr * gradient
        rounding = lr * own + 3 * unit * (np.abs(kernel) + lr * np.abs(gradient)).ravel()
        error = growth * error * (1 + 4 * unit) + float(np.linalg.norm(rounding))
        kernel = stepped
    return DescentPath(kernel, np.array(losses), error, np.array(loss_bounds))


def _outputs(kernel: tuple[int, ...], layout: str | None) -> int:
    return 1 if len(kernel) == 2 else kernel[3] if data_format(layout) == "NHWC" else kernel[0]


def _positive(geometry: GeometryOptions, value: float | None = None) -> GeometryOptions:
    """The geometry with the magnitude of its border's value, or with another value in its place."""
    magnitude = abs(geometry.get("padding_value", 0.0))
    return {**geometry, "padding_value": value if value and magnitude else magnitude}


def magnitude(a: Any) -> np.ndarray:
    """Absolute values in float64; 0 for infinities and NaN, which have no rounding error."""
    array = np.abs(wide(a)).astype(np.float64)
    return np.where(np.isfinite(array), array, 0.0)


def sum_bound(total: np.ndarray, n: int, dtype: str, *factors: Any) -> np.ndarray:
    """The bound of a sum of n products in a dtype, in any order; `total` is the sum of their magnitudes."""
    return np.asarray(gamma(n, dtype) * total + _underflow(n, _SMALLEST[dtype], *factors))


def _underflow(n: int, exponent: int, *factors: Any) -> float:
    """The most that is lost if numbers below 2**exponent count as zero, in n products or in a factor of each."""
    return float(n * 2.0**exponent * (1 + sum(float(np.max(factor, initial=0.0)) for factor in factors)))
