"""The oracle is right: against SciPy, against exact rational arithmetic, against hand-computed gradients."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from convlab.testing import Case, error_bound, golden_cases, gradient_bounds, oracle_gradients, random_case
from convlab.truth.bounds import gamma
from convlab.truth.oracle import oracle

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.sampled_from(["valid", "same", "full"]))
def test_against_scipy(seed, mode) -> None:
    rng = np.random.default_rng(seed)
    h, w = 2 * rng.integers(0, 3, 2) + 1
    X, K = rng.standard_normal((h + rng.integers(0, 6), w + rng.integers(0, 6))), rng.standard_normal((h, w))
    bound = error_bound(X, K, padding=mode) * 2
    assert (np.abs(oracle(X, K, padding=mode) - scipy.signal.correlate2d(X, K, mode)) <= bound).all()


@pytest.mark.parametrize(("ours", "scipys"), [("reflect", "mirror"), ("replicate", "nearest"), ("circular", "wrap")])
@given(seed=SEEDS)
def test_padding_modes_against_scipy(ours, scipys, seed) -> None:
    """The padding may be larger than the image."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-9, 9, rng.integers(2, 5, 2)).astype(float)
    K = rng.integers(-9, 9, 2 * rng.integers(0, 5, 2) + 1).astype(float)
    expected = scipy.ndimage.correlate(X, K, mode=scipys)
    np.testing.assert_array_equal(oracle(X, K, padding="same", padding_mode=ours), expected)


def exact(case: Case) -> np.ndarray:
    """The definition in rational arithmetic, element by element, for rank-4 NCHW without padding."""
    (n, _, _, _), (o, per_group, h, w) = case.X.shape, case.K.shape
    groups, (sh, sw), (dh, dw) = (case.options[key] for key in ("groups", "stride", "dilation"))
    rows = (case.X.shape[2] - (h - 1) * dh - 1) // sh + 1
    columns = (case.X.shape[3] - (w - 1) * dw - 1) // sw + 1
    y = np.empty((n, o, rows, columns), object)
    for b, k, i, j in np.ndindex(*y.shape):
        first = k // (o // groups) * per_group
        y[b, k, i, j] = sum(
            Fraction(float(case.X[b, first + c, i * sh + p * dh, j * sw + q * dw]))
            * Fraction(float(case.K[k, c, p, q]))
            for c, p, q in np.ndindex(per_group, h, w)
        )
    return y


def plain(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    groups, per_group, outputs = (int(n) for n in rng.integers(1, 3, 3))
    h, w, dilation, stride = *rng.integers(1, 4, 2), tuple(rng.integers(1, 3, 2)), tuple(rng.integers(1, 3, 2))
    size = ((h - 1) * dilation[0] + rng.integers(1, 4), (w - 1) * dilation[1] + rng.integers(1, 4))
    X = rng.standard_normal((2, groups * per_group, *size))
    K = rng.standard_normal((groups * outputs, per_group, h, w))
    return Case("plain", X, K, options={"groups": groups, "stride": stride, "dilation": dilation})


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_against_exact_arithmetic(seed) -> None:
    case = plain(seed)
    truth, y, bound = exact(case), oracle(case.X, case.K, **case.options), error_bound(case.X, case.K, **case.options)
    for got, true, allowed in zip(y.flat, truth.flat, bound.flat, strict=True):
        assert abs(Fraction(float(got)) - true) <= Fraction(float(allowed))


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_float32_rounds_the_exact_result_once(seed) -> None:
    """NumPy's own way computes float32 in float64, so its result is the correctly rounded one but for ties."""
    from convlab import numpy as lab

    case = plain(seed)
    case = Case("plain", case.X.astype("float32"), case.K.astype("float32"), options=case.options)
    y = lab.corr2d(case.X, case.K, algorithm="native", **case.options)
    nearest = np.array([np.float32(float(t)) for t in exact(case).flat], "float32").reshape(y.shape)
    np.testing.assert_array_max_ulp(y, nearest, maxulp=1)


def flat(shape: tuple[int, ...]) -> list[np.ndarray]:
    return [np.eye(1, int(np.prod(shape)), i).reshape(shape) for i in range(int(np.prod(shape)))]


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_gradients_are_the_adjoint(seed) -> None:
    """But for a border's value, corr2d is linear in X and in K: the gradients are its matrices' transposes."""
    case = random_case(seed, integers=True)
    y = oracle(case.X, case.K, **case.options)
    dY = np.random.default_rng(seed).integers(-8, 9, y.shape).astype(float)
    gradients = oracle_gradients(case.X, case.K, dY, **case.options)
    if case.X.size <= 150:
        border = oracle(np.zeros(case.X.shape), case.K, **case.options)
        by_x = [(dY * (oracle(e, case.K, **case.options) - border)).sum() for e in flat(case.X.shape)]
        np.testing.assert_array_equal(gradients.X.ravel(), by_x)
    by_k = [(dY * oracle(case.X, e, **case.options)).sum() for e in flat(case.K.shape)]
    np.testing.assert_array_equal(gradients.K.ravel(), by_k)
    channel = -1 if case.options.get("data_format") == "NHWC" else -3
    axes = [axis for axis in range(y.ndim) if case.K.ndim == 2 or axis != channel % y.ndim]
    np.testing.assert_array_equal(gradients.bias, np.atleast_1d(dY.sum(tuple(axes))))


def test_golden_gradient_by_hand() -> None:
    gradients = oracle_gradients([[1, 2, 3], [4, 5, 6]], [[1, -1]], [[1, 0], [0, 2]])
    assert gradients.X.tolist() == [[1, -1, 0], [0, 2, -2]]
    assert gradients.K.tolist() == [[1 * 1 + 5 * 2, 2 * 1 + 6 * 2]]
    assert gradients.bias.tolist() == [3]


def test_bounds_by_hand() -> None:
    X, K = np.array([[1.0, -2.0]], "float32"), np.array([[3.0, 4.0]], "float32")
    # There are two products and two roundings; |x||k| adds up to 11.
    assert error_bound(X, K)[0, 0] == pytest.approx(11 * gamma(4, "float32"), rel=1e-12)
    assert (error_bound(X.astype(int), K.astype(int)) == 0).all()
    bounds = gradient_bounds(X, K, np.array([[2.0]]), "float32")
    assert bounds.X.ravel() == pytest.approx([6 * gamma(3, "float32"), 8 * gamma(3, "float32")], rel=1e-12)
    assert bounds.K.ravel() == pytest.approx([2 * gamma(2, "float32"), 4 * gamma(2, "float32")], rel=1e-12)


def test_the_bound_catches_a_wrong_result() -> None:
    """The bound is tight enough to see a float16 accumulation or one wrong element in 10,000."""
    rng = np.random.default_rng(0)
    X, K = rng.standard_normal((32, 32)).astype("float32"), rng.standard_normal((3, 3)).astype("float32")
    sloppy = oracle(X.astype("float16"), K)
    assert (np.abs(sloppy - oracle(X, K)) > error_bound(X, K)).mean() > 0.9


def test_golden_cases_name_their_source() -> None:
    cases = golden_cases()
    assert len({case.name for case in cases}) == len(cases) >= 20
    assert all(case.source and case.Y is not None for case in cases)


def test_integers_beside_fractions_are_not_rounded() -> None:
    assert oracle(np.array([[1, 2, 4]], "uint8"), [[0.5, 0.25]]).tolist() == [[1.0, 2.0]]
    assert oracle([[0.5, 0.25]], [[1, 2]]).tolist() == [[1.0]]
