"""The suspects that lose precision: narrower inputs, sums and results, and Winograd's algorithm.

The first kind predicts the result; the others only bound it, and so need other marks beside (`Fault.check`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..dtypes import SIGNIFICAND
from .bounds import gamma
from .faults import LOSSES, Fault, SuspectedCall, suspect

# The most that underflow takes of a product: subnormal numbers count as zero in all dtypes but float16.
_LEAST = {"float16": 2.0**-24, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}

_EVEN, _AWAY, _CUT = "to the nearest, ties to even", "to the nearest, ties away from zero", "by truncation"


def rounded(x: np.ndarray, dtype: str, how: str = _EVEN) -> np.ndarray:
    """Values rounded to a dtype, as float64; `how` counts for bfloat16 alone, which NumPy doesn't have.

    What is too large for the dtype becomes infinite.

    >>> rounded(np.array([1 + 3 * 2**-8]), "bfloat16"), rounded(np.array([1 + 3 * 2**-8]), "float16")
    (array([1.015625]), array([1.01171875]))
    """
    with np.errstate(over="ignore"):
        return _shortened(x, 7, how) if dtype == "bfloat16" else x.astype(dtype).astype(np.float64)


def _shortened(x: np.ndarray, bits: int, how: str = _EVEN) -> np.ndarray:
    """Values of float32 whose mantissa is cut down to its first `bits` bits, as float64.

    >>> _shortened(np.array([1 + 3 * 2**-11]), 10), _shortened(np.array([1 + 3 * 2**-11]), 10, _CUT)
    (array([1.00195312]), array([1.00097656]))
    """
    word = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.int64)
    drop = 23 - bits
    half = 1 << drop >> 1
    if how == _EVEN:
        word = word + (half - 1 + (word >> drop & 1))
    elif how == _AWAY:
        word = word + half
    shortened = (word >> drop << drop).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(x), shortened, x).astype(np.float64)


def _through_float32(x: np.ndarray, dtype: str, how: str = _EVEN) -> np.ndarray:
    """Values rounded to float32, as they are in most computations, and then to a dtype."""
    return rounded(x.astype(np.float32), dtype, how)


def _inputs(call: SuspectedCall, rounding: Callable[[np.ndarray], np.ndarray], **changes: Any) -> SuspectedCall:
    return call.changed(x=rounding(call.x), k=rounding(call.k), **changes)


def _narrower(call: SuspectedCall, dtype: str) -> bool:
    return SIGNIFICAND[dtype] < SIGNIFICAND.get(call.dtype, 64)


@suspect("TF32")
def _tf32(call: SuspectedCall) -> Iterator[Fault]:
    # Tensor cores truncate sums: Fasi et al., Numerical behavior of NVIDIA tensor cores, PeerJ CS 7 (2021), e330.
    change = (
        "compute in full float32: torch.backends.cudnn.conv.fp32_precision = 'ieee' (before PyTorch 2.9 "
        "torch.backends.cudnn.allow_tf32 = False), tf.config.experimental.enable_tensor_float_32_execution(False), "
        "jax.config.update('jax_default_matmul_precision', 'highest')"
    )
    for how in (_EVEN, _AWAY, _CUT):
        if call.dtype == "float32" or _narrower(call, "float32"):
            other = _inputs(call, partial(_shortened, bits=10, how=how), dtype="float32", slack=4)
            yield Fault(f"X and K are rounded to TF32, 10 bits of mantissa, {how}", change, other)


def _half_inputs(dtype: str, *ways: str) -> None:
    @suspect(f"{dtype} inputs")
    def faults(call: SuspectedCall) -> Iterator[Fault]:
        change = "compute in float32: no autocast; in JAX jax.config.update('jax_default_matmul_precision', 'highest')"
        for how in ways:
            if _narrower(call, dtype):
                other = _inputs(call, partial(_through_float32, dtype=dtype, how=how), dtype="float32", slack=4)
                yield Fault(f"X and K are rounded to {dtype}, {how}; the sums aren't", change, other)


_half_inputs("float16", _EVEN)
_half_inputs("bfloat16", _EVEN, _CUT)


def _loss(
    dtype: str, name: str, what: str, other: Callable[..., SuspectedCall], bound: Callable[[SuspectedCall], np.ndarray]
) -> None:
    """The suspect of a result that a narrower dtype holds."""

    @suspect(f"{dtype} {name}", LOSSES)
    def faults(call: SuspectedCall) -> Iterator[Fault]:
        if not _narrower(call, dtype):
            return
        computed = other(call)

        def check(y: np.ndarray, wrong: np.ndarray) -> bool:
            # Every dtype holds small integers, so those of the true result say nothing.
            return _held(dtype, y) and not _held(dtype, computed.values)

        change = f"compute in a wider dtype than {dtype}, and keep the result in it"
        yield Fault(f"{what} {dtype}", change, computed.changed(dtype=dtype), bound=bound(computed), check=check)


def _stored(dtype: str, call: SuspectedCall) -> np.ndarray:
    unit = 2.0 ** -SIGNIFICAND[dtype]
    return np.asarray(call.bound + unit * (np.abs(call.values) + call.bound) + _LEAST[dtype])


# The narrowest dtypes come first: the others mostly hold what these hold as well.
for _dtype in ("bfloat16", "float16", "float32"):
    _to = partial(_inputs, rounding=partial(_through_float32, dtype=_dtype))
    _loss(_dtype, "result", "the result is rounded to", lambda call: call, partial(_stored, _dtype))
    if _dtype != "float32":
        _what = "the sums aren't, but X, K and the result are rounded to"
        _loss(_dtype, "inputs and result", _what, partial(_to, dtype="float32", slack=4), partial(_stored, _dtype))
    _loss(_dtype, "sums", "the products are added up in", partial(_to, dtype=_dtype), lambda call: _sum_bound(call))


def _held(dtype: str, y: np.ndarray) -> bool:
    return np.array_equal(_through_float32(y, dtype), y.astype(np.float64), equal_nan=True)


def _grid(*arrays: np.ndarray) -> float:
    """The product of the largest powers of two that divide each array's elements."""
    steps = []
    for a in arrays:
        fraction, exponent = np.frexp(a[(a != 0) & np.isfinite(a)].astype(np.float64))
        digits = (fraction * 2.0**53).astype(np.int64)
        steps.append(np.ldexp((digits & -digits).astype(np.float64), exponent - 53).min(initial=np.inf))
    return float(np.prod(steps))


def _sum_bound(call: SuspectedCall) -> np.ndarray:
    """Higham's bound, or his and Mary's where n is large; 0 where every partial sum is exact.

    Source: N. J. Higham, T. Mary, *A new approach to probabilistic rounding error analysis*, SIAM J. Sci. Comput. 41
    (2019), theorem 2.4 with lambda = 6: without it a long sum in float16 would explain anything.
    """
    n, unit = call.k[0].size + 2, 2.0 ** -SIGNIFICAND[call.dtype]
    likely = np.expm1(6 * np.sqrt(n) * unit + n * unit**2 / (1 - unit))
    bound = min(gamma(n, call.dtype), likely) * call.magnitude + n * _LEAST[call.dtype]
    grid = min(_grid(call.x, call.k), np.inf if call.bias is None else _grid(call.bias))
    return np.where(call.magnitude * unit <= grid, 0.0, bound)


def _transforms(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T, G and B^T of Winograd's F(m, 3) at the points 0, ±1, ±2, ±1/2 and infinity, up to the rows' scale.

    Source: A. Lavin, S. Gray, *Fast algorithms for convolutional neural networks*, CVPR 2016.

    >>> A, G, B = _transforms(4)
    >>> np.allclose(A @ ((G @ [1, 2, 3]) * (B @ [1, 0, 0, 2, 0, 5])), [1, 6, 4, 17])
    True
    """
    points = np.array([0, 1, -1, 2, -2, 0.5, -0.5])[: m + 1]
    others = [np.delete(points, j) for j in range(m + 1)]
    end = np.eye(m + 2)[-1]
    scales = [np.prod(p - rest) for p, rest in zip(points, others, strict=True)]
    G = np.vander(points, 3, increasing=True) / np.array(scales)[:, None]
    B = [np.append(np.poly(rest)[::-1], 0) for rest in others]
    A = np.vander(points, m, increasing=True).T
    return np.column_stack([A, end[-m:]]), np.vstack([G, end[-3:]]), np.array([*B, np.poly(points)[::-1]])


def _tiled(y: np.ndarray, m: int) -> np.ndarray:
    """(..., H', W') as tiles (..., rows, columns, m * m), filled up with NaN."""
    rows, columns = (-(-n // m) for n in y.shape[-2:])
    ends = (rows * m - y.shape[-2], columns * m - y.shape[-1])
    y = np.pad(y, [(0, 0)] * (y.ndim - 2) + [(0, n) for n in ends], constant_values=np.nan)
    tiles = y.reshape(*y.shape[:-2], rows, m, columns, m).swapaxes(-3, -2)
    return tiles.reshape(*tiles.shape[:-2], m * m)


def _winograd_sum(call: SuspectedCall, m: int) -> np.ndarray:
    """sqrt(|A^T|^2 ((|G|^2 |g|^2 |G^T|^2) * (|B^T|^2 |d|^2 |B|^2)) |A|^2), squares elementwise, for each output.

    With first powers it is the forward bound of B. Barabasz, A. Anderson, K. M. Soodhalter, D. Gregg, *Error analysis
    and improving the accuracy of Winograd convolution for deep neural networks*, ACM TOMS 46 (2020). Roundings are
    independent, so that the 2-norm bounds them as well with a wide margin, and explains much less.
    """
    A, G, B = (a**2 for a in _transforms(m))
    g, (n, o, rows, columns) = call.groups, call.size
    x = call.padded().astype(np.float64) ** 2
    x = np.pad(x, [(0, 0), (0, 0), (0, -rows % m), (0, -columns % m)])
    d = np.lib.stride_tricks.sliding_window_view(x, (m + 2, m + 2), (2, 3))[:, :, ::m, ::m]
    u = (G @ call.k.astype(np.float64) ** 2 @ G.T).reshape(g, o // g, -1, m + 2, m + 2)
    v = (B @ d @ B.T).reshape(n, g, -1, *d.shape[2:])
    y = A @ np.einsum("goipq,ngihwpq->ngohwpq", u, v) @ A.T
    y = y.reshape(n, o, *d.shape[2:4], m, m).swapaxes(3, 4).reshape(n, o, d.shape[2] * m, -1)
    return np.asarray(np.sqrt(y[:, :, :rows, :columns]))


@suspect("Winograd", LOSSES)
def _winograd(call: SuspectedCall) -> Iterator[Fault]:
    if call.geometry.extent != (3, 3) or call.stride != (1, 1) or call.k.shape[2:] != (3, 3) or not call.values.size:
        return
    change = (
        "ask for a direct or matrix-product algorithm (cuDNN: CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM; in PyTorch "
        "torch.backends.mkldnn or cudnn off), or scale the data so that huge and small values aren't neighbours"
    )
    for dtype in (d for d in ("float64", "float32", "float16") if d == call.dtype or _narrower(call, d)):
        for m in (2, 4, 6):
            terms = 2 * (3 + 1) + 4 * (m + 2) + call.k.shape[1] + 4
            total = _winograd_sum(call, m)
            bound = call.bound + gamma(terms, dtype) * total + terms * _LEAST[dtype]
            what = f"the errors are those of Winograd's F({m}x{m}, 3x3) in {dtype}: beyond a sum's, within its own"
            check = partial(_winograd_marks, call, m, dtype, total)
            yield Fault(what, change, call.changed(dtype=dtype), bound=bound, check=check)


def _winograd_marks(
    call: SuspectedCall, m: int, dtype: str, total: np.ndarray, y: np.ndarray, wrong: np.ndarray
) -> bool:
    """Whether the errors grow and shrink over the tiles as Winograd's do, more than with the windows' own magnitudes.

    An output's error depends on its place in its tile and on all the tile's pixels, which other noise does not.
    """
    error = np.abs(y - call.values)
    tiles = _tiled(wrong.astype(float), m)
    touched = np.isfinite(tiles) & (tiles == 1).any(-1, keepdims=True)
    samples = [_tiled(a, m)[touched] for a in (error, total, call.magnitude)]
    positive = np.all([np.isfinite(a) & (a > 0) for a in samples], 0)
    if positive.sum() < 32 or positive.mean() < 0.5 or (dtype == "float16" and not _held(dtype, y)):
        return False
    errors, tilewise, own = (np.log(a[positive]) for a in samples)
    return _correlation(errors, tilewise) > max(0.35, _correlation(errors, own) + 0.05)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-6 and b.std() > 1e-6 else 0.0
