"""`assert_parity`: is a convolution's result right, whoever computed it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import numpy as np

from ..errors import DTypeError
from ..geometry.options import GeometryOptions
from ..truth.bounds import error_bound, error_ratios, overflows
from ..truth.diagnosis import diagnose
from ..truth.oracle import as_numpy, computed_in, oracle

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


def assert_parity(
    y: ArrayLike,
    X: ArrayLike,
    K: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    algorithm: str = "direct",
    **geometry: Unpack[GeometryOptions],
) -> None:
    """Assert that y is `corr2d(X, K, bias=bias, **geometry)` within the rounding bound of float64's true result.

    >>> import numpy as np
    >>> X, K = np.arange(12.0).reshape(3, 4), np.array([[1.0, -1.0]])
    >>> assert_parity(np.diff(X), X, K)
    Traceback (most recent call last):
    AssertionError: y: 9 of 9 elements are off by more than their rounding bound; the worst, y[2, 0] = 1.0 instead of
    -1.0, by 8.9...e+13 bounds.
    kernel flipped: ...

    Args:
        y: anyone's result: an array, a list or a tensor of any framework that convlab knows.
        X: the image that it was computed from, with the values that the computation started from.
        K: the kernel, likewise.
        bias: the bias, likewise.
        dtype: the dtype that it was computed in; by default the one that corr2d computes X, K and bias in.
        algorithm: as in `error_bound`.
        geometry: corr2d's stride, padding, padding_mode, dilation, groups, data_format.

    Raises:
        DTypeError: complex numbers, or a dtype that is none.
        AssertionError: says where y is wrong, by how many bounds, and what it looks like (`diagnose`).
    """
    dtype = computed_in(dtype, X, K, bias)
    result, x, k = as_numpy(y, "y"), as_numpy(X, "X"), as_numpy(K, "K")
    b = None if bias is None else as_numpy(bias, "bias")
    if result.dtype.kind == "c":
        raise DTypeError("y: got complex numbers, expected real ones.", hint="look at their parts apart.")
    true = oracle(x, k, bias=b, **geometry)
    if result.shape != true.shape:
        problem = f"y: got shape {result.shape}, expected {true.shape}."
    else:
        bound = error_bound(x, k, bias=b, dtype=dtype, algorithm=algorithm, **geometry)
        overflow = not np.isfinite(result).all() and overflows(x, k, bias=b, dtype=dtype, **geometry)
        ratios = error_ratios(result, true, bound, overflow)
        wrong = int((ratios > 1).sum())
        if not wrong:
            return
        worst = np.unravel_index(int(ratios.argmax()), ratios.shape)
        place = ", ".join(map(str, worst))
        problem = (
            f"y: {wrong} of {ratios.size} elements are off by more than their rounding bound; the worst, "
            f"y[{place}] = {result[worst]!s} instead of {true[worst]!s}, by {ratios[worst]:.4g} bounds."
        )
    why = diagnose(result, x, k, bias=b, dtype=dtype, **geometry)
    raise AssertionError(problem if why is None else f"{problem}\n{why}")
