"""`assert_parity` and the bounds it rests on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import convlab
from convlab.errors import DTypeError, GeometryError, ShapeError
from convlab.testing import assert_parity, diagnose, error_bound, worst_ratio
from convlab.truth.oracle import oracle

rng = np.random.default_rng(0)
X, K = rng.standard_normal((2, 3, 9, 8)).astype("float32"), rng.standard_normal((4, 3, 3, 2)).astype("float32")
OPTIONS = {"stride": (2, 1), "padding": ((1, 0), (2, 1))}


def test_anyones_right_result(lab) -> None:
    x, k = lab.asarray(X), lab.asarray(K)
    assert_parity(lab.corr2d(x, k, **OPTIONS), x, k, **OPTIONS)
    assert_parity(lab.corr2d(x, k, reproducible=True, **OPTIONS), X, K, algorithm="reproducible", **OPTIONS)
    assert_parity(oracle(X, K).tolist(), X, K)


def test_lists_and_numpys_kernels_leave_a_result_its_dtype(lab) -> None:
    """As in corr2d: a list is weak, and so is NumPy's kernel beside another framework's image."""
    kernel = [[0.1, -0.7], [0.3, 1.1]]
    x = lab.asarray(X[0, 0])
    assert_parity(lab.corr2d(x, kernel), x, kernel)
    assert_parity(lab.corr2d(x, np.array(kernel)), x, np.array(kernel))
    with pytest.raises(AssertionError, match="off by more"):
        assert_parity(lab.corr2d(x, kernel), x, kernel, dtype="float64")


def test_it_says_where_by_how_much_and_what_it_looks_like() -> None:
    y = oracle(X, K, **OPTIONS).astype("float32")
    y[1, 2, 3, 4] += 1
    with pytest.raises(AssertionError, match=r"y: 1 of 320 elements .* y\[1, 2, 3, 4\] = .* instead of .* bounds\."):
        assert_parity(y, X, K, **OPTIONS)
    with pytest.raises(AssertionError, match="padding reversed"):
        assert_parity(oracle(X, K, stride=(2, 1), padding=((0, 1), (1, 2))), X, K, **OPTIONS)
    with pytest.raises(AssertionError, match=r"got shape \(2, 4, 7, 7\), expected \(2, 4, 4, 10\)"):
        assert_parity(oracle(X, K), X, K, **OPTIONS)


def test_nan_infinity_and_overflow() -> None:
    x = X.copy()
    x[0, 0, 4, 4], x[1, 1, 2, 2] = np.inf, np.nan
    with np.errstate(all="ignore"):
        y = oracle(x, K)
    assert_parity(y, x, K)
    y[0, 0, 0, 0] += 1
    with pytest.raises(AssertionError, match=r"y: 1 of .* y\[0, 0, 0, 0\]"):
        assert_parity(y, x, K)
    y = oracle(x, K)
    y[1, 0, 1, 1] = 0
    with pytest.raises(AssertionError, match=r"0\.0 instead of nan"):
        assert_parity(y, x, K)
    # Where sums of magnitudes overflow, any result is right.
    large = np.full((1, 3), 3e38, "float32")
    assert_parity([[np.inf]], large, [[1, 1, -1]], dtype="float32")
    with pytest.raises(AssertionError, match=r"inf instead of 3\.0000"):
        assert_parity([[np.inf]], large[:, :1] * np.float32(0.5), [[2.0]], dtype="float64")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_reproducible_bound_holds_and_is_tight(dtype) -> None:
    """The bound holds for what is computed, is far below a sum's, and is exceeded by an error of two units."""
    x, k = X.astype(dtype), K.astype(dtype)
    y, true = convlab.corr2d(x, k, reproducible=True), oracle(x, k)
    bound = error_bound(x, k, algorithm="reproducible")
    assert worst_ratio(y, true, bound) <= 1
    if dtype != "float64":
        assert (bound < error_bound(x, k) / 5).all()
        large = np.abs(true) > 1
        off = y + 2 * np.spacing(y)
        assert (np.abs(off - true) > bound)[large].all()


def test_an_exact_sum_against_the_bound() -> None:
    """The float64 oracle's own error, measured in exact arithmetic, is within its bound."""
    x, k = rng.standard_normal((5, 6)), rng.standard_normal((3, 3))
    y, bound = oracle(x, k), error_bound(x, k)
    for i, j in np.ndindex(y.shape):
        window = x[i : i + 3, j : j + 3]
        exact = sum(Fraction(a) * Fraction(b) for a, b in zip(window.flat, k.flat, strict=True))
        assert abs(exact - Fraction(y[i, j])) <= Fraction(bound[i, j])


def test_values_where_sums_may_overflow_are_still_held_to_the_bound() -> None:
    x, k = (
        (10 * rng.standard_normal((1, 64, 8, 8))).astype("f2"),
        (20 * rng.standard_normal((2, 64, 3, 3))).astype("f2"),
    )
    assert_parity(convlab.corr2d(x, k), x, k)
    with pytest.raises(AssertionError):
        assert_parity(np.full((1, 2, 6, 6), 60000.0, "f2"), x, k)


def test_typed_errors() -> None:
    y = oracle(X, K)
    for wrong in (y + 1j, [["a"]], [[1], [2, 3]]):
        with pytest.raises((DTypeError, ShapeError)):
            assert_parity(wrong, X, K)
        with pytest.raises((DTypeError, ShapeError)):
            diagnose(wrong, X, K)
    for dtype in ("float8", "int32", complex, object()):
        with pytest.raises(DTypeError, match="dtype: got"):
            assert_parity(y, X, K, dtype=dtype)
    for dtype in (np.float32, "f4", "float32", np.dtype("float32")):
        assert_parity(y, X, K, dtype=dtype)
    with pytest.raises(TypeError, match="unexpected argument 'pading', expected corr2d's stride"):
        assert_parity(y, X, K, pading=1)


def test_tensors_of_any_framework_and_bfloat16(lab) -> None:
    for dtype in ("float32", "bfloat16"):
        if dtype not in lab.adapter.dtypes:
            continue
        x, k = lab.asarray(X, dtype), lab.asarray(K, dtype)
        y = lab.corr2d(x, k)
        assert_parity(y, x, k)
        assert diagnose(y, x, k) is None
        assert error_bound(x, k).max() > (1e-2 if dtype == "bfloat16" else 1e-8)


def test_an_unknown_algorithm() -> None:
    with pytest.raises(GeometryError, match="algorithm: got 'magic', expected one of direct, reproducible"):
        error_bound(X, K, algorithm="magic")
