"""Correct results are never accused, and garbage is not explained."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planting import LAYOUTS, SEEDS, Plant, is_named, naive, serial

import convlab
from convlab.errors import ConvlabError
from convlab.testing import diagnose, error_bound, random_case
from convlab.truth.oracle import oracle


def float_case(seed, dtype):
    case = random_case(seed)
    arrays = [None if a is None else a.astype(dtype) for a in (case.X, case.K, case.bias)]
    return arrays, case.options


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(["float16", "float32", "float64"]))
def test_correct_results_are_not_accused(seed, dtype) -> None:
    (X, K, bias), options = float_case(seed, dtype)
    true = oracle(X, K, bias=bias, **options)
    assert diagnose(true.astype(dtype), X, K, bias=bias, **options) is None
    assert diagnose(convlab.corr2d(X, K, bias=bias, backend="numpy", **options), X, K, bias=bias, **options) is None
    if dtype != "float64":  # The bound of float64 is no wider than its resolution.
        assert diagnose(true + 0.9 * error_bound(X, K, bias=bias, **options), X, K, bias=bias, **options) is None


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from(["float16", "float32", "float64"]))
def test_sums_in_any_order_are_not_accused(seed, dtype) -> None:
    rng = np.random.default_rng(seed)
    c, h, w = rng.integers(1, 4, 3)
    X = (rng.standard_normal((2, c, h + 3, w + 4)) * 10.0 ** rng.integers(-2, 3, (2, c, h + 3, w + 4))).astype(dtype)
    K = rng.standard_normal((3, c, h, w)).astype(dtype)
    assert diagnose(serial(X, K, np.dtype(dtype), rng.permutation(c * h * w)), X, K) is None


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(["float16", "float32", "float64"]))
def test_garbage_is_unexplained(seed, dtype) -> None:
    (X, K, bias), options = float_case(seed, dtype)
    true = oracle(X, K, bias=bias, **options)
    rng = np.random.default_rng(seed)
    garbage = rng.standard_normal(true.shape) * max(1.0, float(np.abs(true).max()))
    diagnosis = diagnose(garbage, X, K, bias=bias, **options)
    assert diagnosis is not None
    assert diagnosis.suspect == "unexplained", str(diagnosis)
    assert diagnosis.worst > 1
    one = true.copy()
    at = tuple(rng.integers(0, true.shape))
    one[at] += 50 * error_bound(X, K, bias=bias, **options)[at]
    diagnosis = diagnose(one, X, K, bias=bias, **options)
    assert diagnosis is None or diagnosis.suspect == "unexplained", str(diagnosis)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_integers(seed) -> None:
    case = random_case(seed, integers=True)
    X, K, bias = (None if a is None else a.astype(int) for a in (case.X, case.K, case.bias))
    true = oracle(X, K, bias=bias, **case.options)
    assert diagnose(true, X, K, bias=bias, **case.options) is None
    for dtype in (None, "float32"):
        off = true.copy()
        off[tuple(np.random.default_rng(seed).integers(0, true.shape))] += (
            10_007  # An error of 1 might be that of a narrow dtype.
        )
        diagnosis = diagnose(off, X, K, bias=bias, dtype=dtype, **case.options)
        assert diagnosis is not None
        assert true.size < 4 or diagnosis.suspect == "unexplained", str(diagnosis)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(LAYOUTS))
def test_degenerate_sizes(seed, layout) -> None:
    """Most suspects are the truth here, so none may be accused."""
    rng = np.random.default_rng(seed)
    c, o, n = (int(i) for i in rng.integers(1, 3, 3))
    x, k = [(n, c, 1, 1), (o, c, 1, 1)], [(n, 1, 3, 3), (1, 1, 1, 1)]
    for shape, kernel in (x, k, [(n, 1, 1, 1), (o, 1, 1, 1)]):
        p = Plant(seed, layout, x=shape, k=kernel)
        assert p.diagnose(naive(p.x, p.k)) is None
        diagnosis = p.diagnose(naive(p.x, p.k) + 100.0 * (1 + rng.random((n, kernel[0], *shape[2:]))))
        is_named(diagnosis, "unexplained")


def test_empty() -> None:
    X, K = np.zeros((0, 3, 5, 5)), np.ones((2, 3, 2, 2))
    assert diagnose(np.zeros((0, 2, 4, 4)), X, K) is None
    assert diagnose(np.zeros((0, 2, 7, 7)), X, K).suspect == "unexplained"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(value) -> None:
    p = Plant(0, "NCHW")
    p.x[0, 1, 4, 5] = value
    y = naive(p.x, p.k)
    assert p.diagnose(y) is None
    is_named(p.diagnose(naive(p.x, p.k[:, :, ::-1, ::-1])), "kernel flipped")
    y[1, 0, 0, 0] = value
    diagnosis = p.diagnose(y)
    is_named(diagnosis, "unexplained")
    assert diagnosis.worst == np.inf


def test_overflow_is_no_fault() -> None:
    X, K = np.full((3, 4), 300, "float16"), np.full((1, 2), 200, "float16")
    assert diagnose(np.full((3, 3), np.inf), X, K) is None
    assert diagnose(np.full((3, 3), np.inf), X, K, dtype="float32").suspect.startswith("float16")


def test_where_it_is_wrong() -> None:
    p = Plant(0, "NHWC", padding=1)
    true = naive(p.padded(((1, 1), (1, 1))), p.k)
    noise = 1 + np.random.default_rng(0).random(true.shape)

    def diagnosis_of(*slices):
        y = true.copy()
        y[slices] += noise[slices]
        return p.diagnose(y)

    every = slice(None)
    for slices, words in (
        ((every, every, every, -1), "all in the last column"),
        ((0, every, 0, every), "only image 0, all in the first row"),
        ((every, 2), "only output channel 2"),
        ((every, slice(1, 3), every, 3), "only output channels 1 and 2, all in column 3"),
        ((every, every, slice(1, -1), slice(1, -1)), "everywhere but the border"),
        ((every,), "everywhere"),
    ):
        assert words in diagnosis_of(*slices).explanation
    y = true + noise
    y[:, :, 1:-1, 1:-1] = true[:, :, 1:-1, 1:-1]
    assert "only the border" in p.diagnose(y).explanation
    assert "2 of 640 elements" in diagnosis_of(every, 1, 2, 3).explanation
    diagnosis = p.raw(true[..., 1:])
    assert diagnosis.explanation == f"the result has shape {true[..., 1:].shape} instead of {p.laid_out(true).shape}"
    assert diagnosis.worst == np.inf


def test_it_reads_well() -> None:
    p = Plant(0, "NCHW", padding=((2, 1), (2, 1)))
    text = str(p.diagnose(naive(p.padded(((1, 2), (1, 2))), p.k)))
    assert text.splitlines()[0].startswith(
        "padding reversed: the padding's ends are swapped: 1 before and 2 after instead of 2 before and 1 after. "
    )
    assert text.splitlines()[1].startswith("To mend it: pad 2 before and 1 after: padding=((2, 1), (2, 1)); ")
    assert text.splitlines()[2] == "These data are explained as well by: stride offset."


def test_arguments() -> None:
    with pytest.raises(ConvlabError):
        diagnose(np.ones((2, 2)), np.ones((2, 2)), np.ones((3, 3)))
    with pytest.raises(ConvlabError, match="complex"):
        diagnose(np.ones((2, 2)), np.ones((2, 2), complex), np.ones((1, 1)))
    assert diagnose([[3]], [[1, 2]], [[1, 1]]) is None
