"""`assert_parity`: is a convolution's result right, whoever computed it?"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import promote
from ..registry import backend, owner
from .bounds import error_bound, error_ratios
from .diagnosis import diagnose
from .oracle import oracle


def assert_parity(
    y: Any, X: Any, K: Any, *, bias: Any = None, dtype: str | None = None, algorithm: str = "direct", **geometry: Any
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
        X, K, bias: what it was computed from, with the values that the computation really started from.
        dtype: what it was computed in; by default the narrowest of what y is in and what corr2d would compute in.
        algorithm: as in `error_bound`.
        geometry: corr2d's stride, padding, padding_mode, dilation, groups, data_format.

    Raises:
        AssertionError: says where y is wrong, by how many bounds, and what it looks like (`diagnose`).
    """
    found, x, k, b = (None if each is None else as_numpy(each) for each in (y, X, K, bias))
    assert found is not None
    dtype = dtype or promote([each.dtype.name for each in (x, k, b) if each is not None])
    true = oracle(x, k, bias=b, **geometry)
    if found.shape != true.shape:
        problem = f"y: got shape {found.shape}, expected {true.shape}."
    else:
        ratios = error_ratios(found, true, error_bound(x, k, bias=b, dtype=dtype, algorithm=algorithm, **geometry))
        wrong = int((ratios > 1).sum())
        if not wrong:
            return
        worst = np.unravel_index(int(ratios.argmax()), ratios.shape)
        place = ", ".join(map(str, worst))
        problem = (
            f"y: {wrong} of {ratios.size} elements are off by more than their rounding bound; the worst, "
            f"y[{place}] = {found[worst]!s} instead of {true[worst]!s}, by {ratios[worst]:.4g} bounds."
        )
    raise AssertionError(f"{problem}\n{diagnose(found, x, k, bias=b, dtype=dtype, **geometry)}")


def as_numpy(x: Any) -> np.ndarray:
    """An array, a list, or a tensor of any framework, as a NumPy array."""
    name = owner(x)
    return np.asarray(x) if name is None else backend(name).to_numpy(x)
