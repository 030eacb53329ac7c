"""Every algorithm computes the same: exactly, within its bound, with inf and NaN in their places, gradients too."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

import convlab
from convlab.compiled import tiling
from convlab.contract.rule import ALGORITHMS
from convlab.errors import GeometryError, UnsupportedError
from convlab.testing import error_bound, gradients, oracle_gradients, worst_ratio
from convlab.truth.bounds import gradient_bounds
from convlab.truth.oracle import oracle

# X, K, options: one channel, a batch of images, groups, depthwise; strides, dilation, paddings and their modes.
PROBLEMS = {
    "image": ((19, 23), (5, 4), {}),
    "same": ((2, 19, 23), (5, 4), {"padding": "same"}),
    "reflect": ((3, 17, 16), (3, 5), {"padding": ((3, 1), (0, 2)), "padding_mode": "reflect"}),
    "row": ((9, 30), (1, 7), {"padding": "full"}),
    "strided": ((20, 23), (4, 3), {"stride": (2, 3), "padding": 1}),
    "dilated": ((20, 23), (3, 3), {"dilation": (2, 1), "padding": "same", "padding_mode": "circular"}),
    "layer": ((2, 3, 11, 12), (4, 3, 3, 3), {"padding": 1}),
    "grouped": ((2, 4, 11, 12), (6, 2, 3, 4), {"groups": 2, "stride": 2, "padding": (1, 0)}),
    "depthwise": ((2, 4, 11, 12), (4, 1, 3, 5), {"groups": 4, "padding": "same", "padding_mode": "replicate"}),
    "channels last": ((2, 11, 12, 3), (3, 3, 3, 4), {"data_format": "NHWC", "padding": 1}),
    "one pixel": ((1, 1), (1, 1), {}),
}
DENSE = {"image", "same", "reflect", "row", "layer", "depthwise", "channels last", "one pixel"}
# The problems whose gradients aren't tried on JAX, for which XLA compiles each operation of each of them.
SLOW_ON_JAX = {"same", "row", "dilated", "grouped", "one pixel"}
SINGLE = {"image", "same", "reflect", "row", "strided", "dilated", "one pixel"}


def fits(algorithm: str, problem: str) -> bool:
    """What docs/explained/speed.md says of each algorithm."""
    if algorithm == "fft":
        return problem in DENSE
    if algorithm == "phase":
        return problem in DENSE & SINGLE
    if algorithm == "separable":
        return problem in SINGLE - {"row", "one pixel"}
    return True


def offered(lab, algorithm: str) -> bool:
    """What the adapter says of itself, and what numba adds to it; Dask's chunks are NumPy's here."""
    lab = convlab.backend("numpy") if lab.adapter.wraps else lab
    hosted = ("host", "fft", "separable") if tiling.numba_installed() else ()
    return algorithm in ("auto", "direct", *lab.adapter.algorithms, *hosted)


def drawn(problem: str, algorithm: str, integers: bool):
    shape, kernel, options = PROBLEMS[problem]
    rng = np.random.default_rng(len(problem))
    draw = (lambda size: rng.integers(-5, 6, size)) if integers else rng.standard_normal
    x, k = draw(shape), draw(kernel)
    if algorithm == "separable" and len(kernel) == 2:
        k = np.outer(draw(kernel[0]), draw(kernel[1]))
    return x.astype(np.float32), k.astype(np.float32), options


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_result_and_gradients(lab, algorithm, problem) -> None:
    x, k, options = drawn(problem, algorithm, integers=False)
    if not (fits(algorithm, problem) and offered(lab, algorithm)):
        with pytest.raises(UnsupportedError, match="algorithm: got"):
            lab.corr2d(lab.asarray(x), lab.asarray(k), algorithm=algorithm, **options)
        return
    y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), algorithm=algorithm, **options))
    true = oracle(x, k, **options)
    rounding = "fft" if algorithm == "fft" else "direct"
    # A kernel of rank 1 is itself rounded to 2 ulp when it is taken apart, and added up in two steps.
    slack = 3 if algorithm == "separable" else 1
    assert worst_ratio(y, true, slack * error_bound(x, k, algorithm=rounding, **options)) <= 1
    if not lab.adapter.autograd or (lab.name == "jax" and problem in SLOW_ON_JAX):
        return
    dy = np.random.default_rng(1).standard_normal(true.shape).astype(np.float32)
    bias = np.zeros(() if k.ndim == 2 else y.shape[-3 if options.get("data_format") != "NHWC" else -1], np.float32)
    if lab.name == "jax" and algorithm == "separable":  # whose gradients are traced
        with pytest.raises(UnsupportedError, match="kernels with values"):
            gradients(lab, x, k, bias, dy, algorithm=algorithm, **options)
        return
    computed = gradients(lab, x, k, bias, dy, algorithm=algorithm, **options)
    exact, bounds = oracle_gradients(x, k, dy, **options), gradient_bounds(x, k, dy, "float32", **options)
    for name in ("X", "K", "bias"):
        bound = slack * getattr(bounds, name)
        if algorithm == "fft":  # norm-wise: dX and dK are correlations of dY with K and with X
            other = k if name == "X" else x
            bound = bound + 1e-4 * np.linalg.norm(dy) * np.linalg.norm(other)
        assert (
            worst_ratio(np.asarray(getattr(computed, name)).reshape(bound.shape), getattr(exact, name), bound) <= 1
        ), name


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each != "fft"])
def test_integers_are_exact(lab, algorithm, problem) -> None:
    x, k, options = drawn(problem, algorithm, integers=True)
    if fits(algorithm, problem) and offered(lab, algorithm):
        y = lab.corr2d(lab.asarray(x), lab.asarray(k), algorithm=algorithm, **options)
        np.testing.assert_array_equal(lab.to_numpy(y), oracle(x, k, **options))


@pytest.mark.parametrize("size", [31, 40])
def test_integers_stay_exact_where_the_fft_is_faster(lab, size) -> None:
    rng = np.random.default_rng(0)
    x, k = (rng.integers(-9, 10, shape).astype(np.float32) for shape in ((200, 180), (size, size)))
    tensors = lab.asarray(x), lab.asarray(k)
    np.testing.assert_array_equal(lab.to_numpy(lab.corr2d(*tensors)), oracle(x, k))
    if lab.adapter.autograd:
        dy = rng.integers(-3, 4, oracle(x, k).shape).astype(np.float32)
        computed, true = gradients(lab, x, k, np.float32(0), dy), oracle_gradients(x, k, dy)
        np.testing.assert_array_equal(computed.X, true.X)
        np.testing.assert_array_equal(computed.K, true.K)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("algorithm", ["auto", "fft", "phase", "host"])
def test_infinities_and_nan_stay_in_their_places(lab, algorithm, value) -> None:
    if not offered(lab, algorithm):
        return
    rng = np.random.default_rng(0)
    x, k = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 50), (5, 5)))
    x[20, 31] = value
    y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), algorithm=algorithm))
    touched = np.zeros(y.shape, bool)
    touched[16:21, 27:32] = True
    np.testing.assert_array_equal(np.isfinite(y), ~touched)
    expected = oracle(x, k)
    np.testing.assert_array_equal(y[touched], expected[touched].astype(np.float32))


@pytest.mark.parametrize("algorithm", ["auto", "fft", "separable"])
def test_large_numbers_do_not_overflow_on_the_way(lab, algorithm) -> None:
    if not offered(lab, algorithm):
        return
    x, k = np.full((40, 50), 3e37, np.float32), np.full((11, 13), 1e-2, np.float32)
    y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), algorithm=algorithm))
    np.testing.assert_allclose(y, oracle(x, k), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("algorithm", ["host", "fft", "taps", "separable"])
def test_other_dtypes(lab, algorithm, dtype) -> None:
    if dtype not in lab.adapter.dtypes or (dtype == "bfloat16" and lab.name == "numpy") or not offered(lab, algorithm):
        return
    rng = np.random.default_rng(0)
    x, k = rng.standard_normal((30, 33)), np.outer(rng.standard_normal(7), rng.standard_normal(5))
    if algorithm == "separable":
        k = np.outer([1, 2, 4, 8, 4, 2, 1], [1, -1, 2, 4, -2])
    tensors = lab.asarray(x, dtype), lab.asarray(k, dtype)
    held = [lab.to_numpy(each) for each in tensors]
    y = lab.corr2d(*tensors, algorithm=algorithm)
    with lab.ops.scope(dtype):
        assert lab.ops.dtype(y) == dtype
    bound = error_bound(*held, dtype=dtype, algorithm="fft" if algorithm == "fft" else "direct")
    assert worst_ratio(lab.to_numpy(y), oracle(*held), 2 * bound) <= 1


def test_a_kernel_of_higher_rank_cannot_be_separated(lab) -> None:
    with pytest.raises(UnsupportedError, match=r"rank above 1|algorithm: got"):
        lab.to_numpy(
            lab.corr2d(lab.asarray(np.eye(9), "float32"), lab.asarray(np.eye(5), "float32"), algorithm="separable")
        )


def test_a_named_algorithm_and_reproducible_exclude_each_other(lab) -> None:
    with pytest.raises(GeometryError, match="reproducible=True, expected 'auto'"):
        lab.corr2d([[1.0]], [[1.0]], algorithm="fft", reproducible=True)


def test_remembered_calls_are_still_checked(lab) -> None:
    """A call like one before skips the checks: it mustn't be taken for one that only looks like it."""
    x, k = lab.asarray(np.ones((4, 6)), "float32"), lab.asarray(np.ones((2, 2)), "float32")
    for _ in range(3):
        assert lab.to_numpy(lab.corr2d(x, k, stride=1, groups=1)).shape == (3, 5)
    for options in (
        {"stride": True},
        {"groups": True},
        {"padding": True},
        {"stride": (1, True)},
        {"algorithm": ["fft"]},
    ):
        with pytest.raises(GeometryError):
            lab.corr2d(x, k, **options)
    other = next(each for each in ("float64", "float16") if each in lab.adapter.dtypes)
    for dtype in ("float32", other):
        y = lab.corr2d(lab.asarray(np.ones((4, 6)), dtype), lab.asarray(np.ones((2, 2)), dtype))
        with lab.ops.scope(dtype):
            assert lab.ops.dtype(y) == dtype
    with pytest.raises(convlab.errors.ShapeError):
        lab.corr2d(x, lab.asarray(np.ones((5, 5)), "float32"))
    for scale in (1.0, 3.0):  # by shapes, not by values
        y = lab.corr2d(x, lab.asarray(np.full((2, 2), scale), "float32"), bias=lab.asarray([scale], "float32"))
        np.testing.assert_array_equal(lab.to_numpy(y), np.full((3, 5), 5 * scale))


@pytest.mark.parametrize("size", [8, 120])
def test_remembered_calls_depend_on_all_that_a_call_depends_on(lab, size) -> None:
    """Each of these after the plainest call of the same shapes."""
    x, k = (lab.asarray(np.ones(shape), "float32") for shape in ((size, size), (5, 5)))
    plain = lab.to_numpy(lab.corr2d(x, k))
    for _ in range(2):
        lab.corr2d(x, k)
        for bias in (2, 2.0, [2.0], np.float32(2), np.full(1, 2.0, np.float32), lab.asarray([2.0], "float32")):
            np.testing.assert_array_equal(lab.to_numpy(lab.corr2d(x, k, bias=bias)), plain + 2)
        np.testing.assert_array_equal(lab.to_numpy(lab.corr2d(x, np.ones((5, 5)))), plain)
        np.testing.assert_array_equal(lab.to_numpy(lab.corr2d(x, k, dilation=(1, 1), groups=1)), plain)
        assert lab.to_numpy(lab.corr2d(x, k, padding=1)).shape == (size - 2, size - 2)
        assert lab.to_numpy(lab.corr2d(x, k, padding="same", padding_mode="reflect")).min() == 25


def test_the_chosen_backend_counts_for_arrays_seen_before(lab) -> None:
    x, k = np.ones((80, 80), np.float32), np.ones((3, 3), np.float32)
    for _ in range(2):
        assert type(convlab.corr2d(x, k)) is np.ndarray
        with convlab.use_backend(lab.name):
            assert type(convlab.corr2d(x, k)) is type(lab.asarray(x))
        assert type(convlab.corr2d(x, k, backend=lab.name)) is type(lab.asarray(x))


@pytest.mark.parametrize(
    "shapes", [((300, 300), (290, 280)), ((280, 60), (270, 20)), ((2, 3, 40, 300), (3, 1, 5, 260))]
)
def test_kernels_above_256_beside_scipy(lab, shapes) -> None:
    """Eagerly by SciPy's transforms on the tensors' memory: result and gradients in float64."""
    if not offered(lab, "fft"):
        with pytest.raises(UnsupportedError, match="algorithm: got 'fft'"):
            lab.corr2d(lab.asarray(np.ones(shapes[0])), lab.asarray(np.ones(shapes[1])), algorithm="fft")
        return
    rng = np.random.default_rng(0)
    x, k = (rng.standard_normal(shape) for shape in shapes)
    options = {"groups": 3} if k.ndim == 4 else {}
    images, kernels = x.reshape(-1, *x.shape[-2:]), np.broadcast_to(k, (2, *k.shape)).reshape(-1, *k.shape[-2:])
    pairs = list(zip(images, kernels[: len(images)], strict=True))
    true = np.stack([scipy.signal.correlate(a, b, "valid") for a, b in pairs])
    y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), algorithm="fft", **options))
    np.testing.assert_allclose(y.reshape(true.shape), true, atol=1e-11)
    if not lab.adapter.autograd:
        return
    dy = rng.standard_normal(y.shape)
    bias = np.zeros(() if k.ndim == 2 else len(k))
    computed = gradients(lab, x, k, bias, dy, algorithm="fft", **options)
    slopes = dy.reshape(true.shape)
    by_image = np.stack([scipy.signal.convolve(d, b, "full") for d, (_, b) in zip(slopes, pairs, strict=True)])
    np.testing.assert_allclose(computed.X.reshape(by_image.shape), by_image, atol=1e-11)
    by_kernel = np.stack([scipy.signal.correlate(a, d, "valid") for (a, _), d in zip(pairs, slopes, strict=True)])
    if k.ndim == 4:
        by_kernel = by_kernel.reshape(2, 3, *k.shape[-2:]).sum(0)
    np.testing.assert_allclose(computed.K.reshape(by_kernel.shape), by_kernel, atol=1e-11)


def test_infinities_stay_in_their_places_under_kernels_above_256(lab) -> None:
    algorithm = "fft" if offered(lab, "fft") else "auto"
    rng = np.random.default_rng(0)
    x, k = rng.standard_normal((4, 300)).astype(np.float32), rng.standard_normal((3, 260)).astype(np.float32)
    x[0, 20] = np.inf
    y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), algorithm=algorithm))
    true = oracle(x, k)
    assert np.array_equal(np.isfinite(y), np.isfinite(true))
    assert np.isfinite(y[1]).all()
    assert np.isfinite(y[0, 21:]).all()
    np.testing.assert_allclose(y[np.isfinite(true)], true[np.isfinite(true)], atol=1e-3)


@pytest.mark.parametrize("padding", [0, 150])
def test_few_results_of_a_large_kernel(lab, padding) -> None:
    """A single result of 90,000 products isn't left to thousands of operations."""
    rng = np.random.default_rng(0)
    x, k = (rng.standard_normal((300, 300)).astype(np.float32) for _ in range(2))
    y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), padding=padding))
    true = scipy.signal.correlate(np.pad(x, padding).astype(float), k.astype(float), "valid")
    np.testing.assert_allclose(y, true, atol=2e-2)


def test_a_huge_kernel_of_rank_one(lab) -> None:
    x, k = np.full((300, 300), 1e-12, np.float32), np.full((21, 21), 1e38, np.float32)
    y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k)))
    np.testing.assert_allclose(y, oracle(x, k), rtol=1e-4)


def test_nothing_to_compute_whatever_the_algorithm(lab) -> None:
    k = lab.asarray(np.ones((3, 3)), "float32")
    for algorithm in ALGORITHMS:
        empty = lab.corr2d(lab.asarray(np.zeros((0, 70, 70)), "float32"), k, algorithm=algorithm)
        assert lab.to_numpy(empty).shape == (0, 68, 68)
