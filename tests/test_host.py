"""The numba kernels of `convlab.compiled` against SciPy in float64, the oracle, and the definition by loops."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from convlab.compiled import kernels, threads, tiling
from convlab.errors import GeometryError
from convlab.geometry.geometry import PADDING_MODES, Geometry
from convlab.truth.bounds import error_bound, gradient_bounds, worst_ratio
from convlab.truth.oracle import oracle, oracle_gradients

DTYPES = ("float16", "float32", "float64")


def normal(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def integers(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(-3, 4, shape).astype(dtype)


def options(geometry: Geometry) -> dict[str, Any]:
    return {name: getattr(geometry, name) for name in ("stride", "padding", "padding_mode", "dilation", "groups")}


def tolerance(*factors: np.ndarray, dtype: str) -> float:
    """What transforms may be off by: c eps log2(T * T) |x| |k| in 2-norms, T being 512 at most."""
    return float(4 * np.finfo(dtype).eps * 18 * math.prod(np.linalg.norm(a.astype(np.float64)) for a in factors))


@st.composite
def problems(draw: st.DrawFn, fft: bool = False) -> tuple[tuple[int, ...], tuple[int, ...], Geometry]:
    """Shapes of x and k, and a geometry in which the kernel fits, often just so."""
    small = st.integers(1, 1 if fft else 3)
    groups, per_group, share = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    pads = st.sampled_from((0, 0, 1, 5))
    geometry = Geometry(
        (draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        (draw(small), draw(small)),
        ((draw(pads), draw(pads)), (draw(pads), draw(pads))),
        draw(st.sampled_from(PADDING_MODES)),
        (draw(small), draw(small)),
        groups,
    )
    more = st.sampled_from((0, 0, 1, 2, 13, 70))
    height, width = (
        max(extent - sum(pads), 1) + draw(more) for extent, pads in zip(geometry.extent, geometry.padding, strict=True)
    )
    x = (draw(st.integers(1, 3)), groups * per_group, height, width)
    return x, (groups * share, per_group, *geometry.kernel_size), geometry


@given(problems(), st.sampled_from(DTYPES))
def test_direct_is_within_its_error_bound(problem, dtype):
    shape, kernel, geometry = problem
    x, k = normal(shape, dtype), normal(kernel, dtype, 1)
    y = kernels.correlate(x, k, geometry)
    assert y.dtype == dtype
    assert worst_ratio(y, oracle(x, k, **options(geometry)), error_bound(x, k, **options(geometry))) <= 1


@given(problems(), st.sampled_from(DTYPES))
def test_kernel_gradient_is_within_its_error_bound(problem, dtype):
    shape, kernel, geometry = problem
    x, k = normal(shape, dtype), normal(kernel, dtype, 1)
    dy = normal((shape[0], kernel[0], *geometry.output_size(shape[2:])), dtype, 2)
    dk = kernels.kernel_gradient(x, dy, geometry)
    assert dk.dtype == dtype
    true = oracle_gradients(x, k, dy, **options(geometry)).K
    bound = gradient_bounds(x, k, dy, "float64" if dtype == "float64" else "float32", **options(geometry)).K
    if dtype == "float16":  # rounded once more
        bound = bound * (1 + 2.0**-11) + 2.0**-11 * np.abs(true) + 2.0**-24
    assert worst_ratio(dk, true, bound) <= 1


@given(problems(), st.sampled_from(DTYPES[1:]))
def test_integers_are_exact(problem, dtype):
    shape, kernel, geometry = problem
    x, k = integers(shape, dtype), integers(kernel, dtype, 1)
    y = kernels.correlate(x, k, geometry)
    np.testing.assert_array_equal(y, oracle(x, k, **options(geometry)))
    np.testing.assert_array_equal(
        kernels.kernel_gradient(x, y, geometry), oracle_gradients(x, k, y, **options(geometry)).K
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=30)
@given(shape=st.tuples(*[st.integers(1, 3)] * 2, *[st.sampled_from((1, 3, 16, 17, 40, 70))] * 2))
def test_layouts_are_numpys(dtype, shape):
    layouts, images = kernels.compiled_module("layouts"), normal(shape, dtype)
    images.flat[0] = math.nan
    images.flat[-1] = -0.0
    first = layouts.to_nchw(images)
    assert first.tobytes() == images.transpose(0, 3, 1, 2).tobytes()
    assert layouts.to_nhwc(first, np.empty_like(images)).tobytes() == images.tobytes()


def test_every_float16_is_widened_and_rounded_as_numpy_does() -> None:
    """All of them, and what lies between two neighbours, with infinities, NaN and what is too large."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = every.astype(np.float32)
        between = np.concatenate([wide * np.float32(1 + sign * 2.0**-11) for sign in (-1.01, -1, 0, 1, 1.01)])
        expected = between.astype(np.float16)
    one = np.ones((1, 1, 1, 1), np.float16)
    y = kernels.correlate(every.reshape(1, 1, 1, -1), one, Geometry((1, 1)))
    np.testing.assert_array_equal(y.ravel(), every)
    if tiling.numba_installed():
        from convlab.compiled import halves

        np.testing.assert_array_equal(halves.widened(every), wide)
        rounded = np.empty(expected.shape, np.float16)
        halves.narrow_into(between, rounded)
        np.testing.assert_array_equal(rounded, expected)


@given(problems(), st.sampled_from(DTYPES))
def test_separable_is_two_passes(problem, dtype):
    (n, _, height, width), (_, _, h, w), geometry = problem
    geometry = geometry._replace(groups=2)
    x, u, v = integers((n, 2, height, width), dtype), integers((h,), dtype, 1), integers((w,), dtype, 2)
    k = np.broadcast_to(np.outer(u, v), (2, 1, h, w))
    y = kernels.separable(x, u, v, geometry)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, oracle(x, k, **options(geometry)))


@given(problems(fft=True), st.sampled_from(DTYPES[1:]))
def test_fft_is_within_its_tolerance(problem, dtype):
    shape, kernel, geometry = problem
    assert tiling.fits_fft(geometry)
    x, k = normal(shape, dtype), normal(kernel, dtype, 1)
    y = kernels.correlate(x, k, geometry, "fft")
    padded = np.pad(x, ((0, 0), (0, 0), *geometry.padding), "wrap")  # at least as large as any mode's
    assert np.abs(y - oracle(x, k, **options(geometry))).max() <= tolerance(padded, k, dtype=dtype)
    dk = kernels.kernel_gradient(x, y, geometry, "fft")
    error = np.abs(dk - oracle_gradients(x, k, y, **options(geometry)).K).max()
    assert error <= tolerance(padded, y, dtype=dtype) * 4


@pytest.mark.parametrize("algorithm", ["direct", "fft"])
@pytest.mark.parametrize(("size", "h", "w"), [(300, 3, 3), (300, 31, 31), (200, 1, 40), (257, 64, 2), (600, 100, 100)])
def test_large_images_as_scipy(algorithm, size, h, w):
    x, k, geometry = normal((1, 1, size, size)), normal((1, 1, h, w), seed=1), Geometry((h, w))
    wide = x[0, 0].astype(np.float64)
    bound = tolerance(x, k, dtype="float32")

    def true(a: np.ndarray) -> np.ndarray:
        return scipy.signal.correlate(wide, a[0, 0].astype(np.float64), "valid", "fft")

    y = kernels.correlate(x, k, geometry, algorithm)
    assert np.abs(y[0, 0] - true(k)).max() <= bound
    dk = kernels.kernel_gradient(x, y, geometry, algorithm)
    assert np.abs(dk[0, 0] - true(y)).max() <= tolerance(x, y, dtype="float32")


def test_plain_correlation_as_scipy():
    x, k = integers((1, 1, 70, 90)), integers((1, 1, 15, 7))
    true = scipy.signal.correlate2d(x[0, 0].astype(np.float64), k[0, 0].astype(np.float64), "valid")
    np.testing.assert_array_equal(kernels.correlate(x, k, Geometry((15, 7)))[0, 0], true)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("algorithm", ["direct", "fft"])
def test_infinities_and_nan_are_where_the_definition_has_them(value, algorithm):
    x, k = integers((1, 1, 40, 80)), integers((1, 1, 5, 6))
    x[0, 0, 7, 70], x[0, 0, 38, 11], x[0, 0, 20, 20], x[0, 0, 21, 22] = value, value, np.inf, -np.inf
    geometry = Geometry((5, 6))
    true, gradient = np.zeros((1, 1, 36, 75)), np.zeros((1, 1, 5, 6))
    dy = integers(true.shape)
    with np.errstate(invalid="ignore"):
        for p, q in np.ndindex(5, 6):
            window = x[:, :, p : p + 36, q : q + 75].astype(np.float64)
            true += window * k[0, 0, p, q]
            gradient[0, 0, p, q] = (window * dy).sum()
    np.testing.assert_array_equal(kernels.correlate(x, k, geometry, algorithm), true)
    np.testing.assert_array_equal(kernels.kernel_gradient(x, dy, geometry, algorithm), gradient)


def test_padding_multiplies_weights_by_zero():
    k = np.zeros((1, 1, 3, 3), np.float32)
    k[0, 0, 0, 0] = np.inf
    y = kernels.correlate(np.ones((1, 1, 4, 4), np.float32), k, Geometry((3, 3), padding=((1, 1), (1, 1))))
    assert np.isnan(y[0, 0, 0]).all()
    assert np.isposinf(y[0, 0, 1:, 1:]).all()


def test_an_overflow_in_the_transform_is_done_again():
    x, k = np.full((1, 1, 64, 64), 2e38, np.float32), np.zeros((1, 1, 3, 3), np.float32)
    k[0, 0, 1, 1] = 1
    assert (kernels.correlate(x, k, Geometry((3, 3)), "fft") == np.float32(2e38)).all()


def test_float16_is_rounded_once_and_overflows_quietly():
    x, k = np.full((1, 1, 9, 9), 2048, np.float16), np.ones((1, 1, 3, 3), np.float16)
    assert (kernels.correlate(x, k, Geometry((3, 3))) == 18432).all()
    out = np.zeros((1, 1, 7, 7), np.float16)
    assert kernels.correlate(x * 16, k, Geometry((3, 3)), out=out) is out
    assert np.isinf(out).all()


@pytest.mark.parametrize("algorithm", ["direct", "fft"])
def test_results_are_the_same_for_any_number_of_threads(algorithm, monkeypatch):
    x, k = normal((2, 3, 400, 333)), normal((6, 1, 15, 15), seed=1)
    geometry = Geometry((15, 15), padding=((7, 7), (7, 7)), padding_mode="reflect", groups=3)
    u, v = normal((15,)), normal((15,), seed=1)
    results = []
    for count in ("1", "2", "5"):
        monkeypatch.setenv("CONVLAB_NUM_THREADS", count)
        y = kernels.correlate(x, k, geometry, algorithm)
        results.append((y, kernels.kernel_gradient(x, y, geometry, algorithm), kernels.separable(x, u, v, geometry)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_calls_from_many_threads(monkeypatch):
    monkeypatch.setenv("CONVLAB_NUM_THREADS", "2")
    x, k, geometry = normal((1, 1, 500, 500)), normal((1, 1, 11, 11)), Geometry((11, 11))
    alone = [kernels.correlate(x, k, geometry, algorithm) for algorithm in ("direct", "fft")]
    wrong = []

    def check() -> None:
        for algorithm, y in zip(("direct", "fft"), alone, strict=True):
            for _ in range(5):
                wrong.append((kernels.correlate(x, k, geometry, algorithm) != y).any())

    callers = [threading.Thread(target=check) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == [False] * 40


FORK = """
import os, numpy as np
from convlab.compiled import kernels
from convlab.geometry.geometry import Geometry
x, k, geometry = np.ones((1, 1, 500, 500), "f"), np.ones((1, 1, 15, 15), "f"), Geometry((15, 15))
kernels.correlate(x, k, geometry)
child = os.fork()
if not child:
    os._exit(int(not (kernels.correlate(x, k, geometry) == 225).all()))
assert os.waitpid(child, 0)[1] == 0
assert (kernels.correlate(x, k, geometry) == 225).all()
"""


@pytest.mark.parametrize("code", [FORK, "import sys, convlab.compiled; assert 'numba' not in sys.modules"])
def test_in_a_process_of_its_own(code, monkeypatch):
    monkeypatch.setenv("CONVLAB_NUM_THREADS", "2")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_an_exception_in_a_thread_reaches_the_caller(monkeypatch):
    monkeypatch.setenv("CONVLAB_NUM_THREADS", "3")
    barrier = threading.Barrier(3, timeout=300)

    def work(start: int, stop: int) -> None:
        barrier.wait()
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        threads.spread(work, 3, 1)


@settings(max_examples=50)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10**6))
def test_separate_finds_factors(h, w, seed):
    u, v = integers((h,), seed=seed), integers((w,), seed=seed + 1)
    u[seed % h] = v[seed % w] = 2
    k = np.outer(u, v)
    factors = kernels.separate(k)
    assert factors is not None
    np.testing.assert_array_equal(np.outer(*factors), k)
    assert all((a == np.round(a)).all() for a in factors)
    k[0, 0] += 1
    factors = kernels.separate(k)
    assert factors is None or (np.outer(*factors) == k).all()


def test_separate_of_other_kernels():
    gaussian = np.exp(-(np.linspace(-2, 2, 9) ** 2))
    for dtype in DTYPES[1:]:
        k = np.outer(gaussian, gaussian).astype(dtype)
        factors = kernels.separate(k)
        assert factors is not None
        assert factors[0].dtype == dtype
        np.testing.assert_allclose(np.outer(*factors), k, rtol=3 * np.finfo(dtype).eps)
    assert kernels.separate(normal((5, 5))) is None
    assert kernels.separate(np.ones((1, 5))) is None
    assert kernels.separate(np.zeros((3, 3))) is None
    for value in (np.nan, np.inf, -np.inf):
        k = np.ones((3, 3), np.float32)
        k[1, 2] = value
        assert kernels.separate(k) is None


def test_read_only_and_strided_arrays():
    x, k = integers((1, 1, 30, 40)), integers((1, 1, 4, 5))
    true = kernels.correlate(x, k, Geometry((4, 5)))
    turned = np.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    for a in (x, k):
        a.setflags(write=False)
    np.testing.assert_array_equal(kernels.correlate(x, k, Geometry((4, 5))), true)
    np.testing.assert_array_equal(kernels.correlate(turned, k, Geometry((4, 5))), true)


def test_empty_results_and_what_fits():
    assert tiling.numba_installed()
    empty = kernels.correlate(np.ones((0, 1, 5, 5), "f"), np.ones((1, 1, 3, 3), "f"), Geometry((3, 3)))
    assert empty.shape == (0, 1, 3, 3)
    zeros = kernels.kernel_gradient(np.ones((0, 1, 5, 5), "f"), empty, Geometry((3, 3)))
    np.testing.assert_array_equal(zeros, np.zeros((1, 1, 3, 3)))
    assert not tiling.fits_fft(Geometry((3, 3), stride=(2, 1)))
    assert not tiling.fits_fft(Geometry((3, 3), dilation=(1, 2)))
    assert not tiling.fits_fft(Geometry((300, 3)))
    assert tiling.fits_fft(Geometry((256, 3)))


@pytest.mark.parametrize("setting", ["abc", "1.5", "0", "-3"])
def test_a_number_of_threads_that_makes_no_sense(monkeypatch, setting):
    monkeypatch.setenv("CONVLAB_NUM_THREADS", setting)
    with pytest.raises(GeometryError, match=f"CONVLAB_NUM_THREADS: got '{setting}'"):
        threads.count()
