"""`reproducible=True`: the same bits on every backend, for data whose sums depend on their order."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convlab
from convlab.errors import DTypeError, GeometryError, UnsupportedError
from convlab.testing import (
    KINDS,
    fill,
    gradient_bounds,
    gradients,
    oracle_gradients,
    random_case,
    reproducible_gradients,
)
from convlab.truth.oracle import oracle

pytestmark = pytest.mark.usefixtures("way")
SEEDS = st.integers(0, 2**32 - 1)


def bits(array: np.ndarray) -> tuple[tuple[int, ...], str, bytes]:
    return array.shape, str(array.dtype), array.tobytes()


def by_hand(x, k, bias, stride, dilation):
    """The definition, one Python float after another."""
    (outputs, channels, h, w), (_, height, width) = k.shape, x.shape
    rows = (height - (h - 1) * dilation[0] - 1) // stride[0] + 1
    columns = (width - (w - 1) * dilation[1] - 1) // stride[1] + 1
    y = np.zeros((outputs, rows, columns), x.dtype)
    for o, i, j in np.ndindex(y.shape):
        total = 0.0
        for c, p, q in np.ndindex(channels, h, w):
            pixel = x[c, i * stride[0] + p * dilation[0], j * stride[1] + q * dilation[1]]
            total += float(pixel) * float(k[o, c, p, q])
        y[o, i, j] = total + float(bias[o])
    return y


def kernel_gradient_by_hand(x, dy, h, w):
    """In each column of the result row by row, then the columns in a halving tree; one channel."""
    rows, columns = dy.shape
    gradient = np.zeros((h, w), x.dtype)
    for p, q in np.ndindex(h, w):
        sums = [sum(float(x[i + p, j + q]) * float(dy[i, j]) for i in range(rows)) for j in range(columns)]
        while len(sums) > 1:
            half = (len(sums) + 1) // 2
            second = [*sums[half:], 0.0]
            sums = [sums[j] + second[j] if j < len(sums) - half else sums[j] for j in range(half)]
        gradient[p, q] = sums[0]
    return gradient


@pytest.mark.parametrize("kind", ["normal", "wide", "cancelling"])
def test_the_order_is_the_documented_one(lab, kind) -> None:
    rng = np.random.default_rng(1)
    for stride, dilation in (((1, 1), (1, 1)), ((2, 1), (1, 2))):
        x, k, bias = (fill(kind, shape, "float32", rng) for shape in ((3, 7, 8), (4, 3, 3, 2), (4,)))
        y = lab.corr2d(
            *map(lab.asarray, (x, k)), bias=lab.asarray(bias), stride=stride, dilation=dilation, reproducible=True
        )
        assert bits(lab.to_numpy(y)) == bits(by_hand(x, k, bias, stride, dilation))


@pytest.mark.parametrize(("channels", "outputs", "columns"), [(1, 1, 8), (3, 20, 21), (33, 16, 17)])
def test_channels_last_the_first_time_and_again(lab, channels, outputs, columns) -> None:
    rng = np.random.default_rng([channels, outputs])
    x, k, bias = (
        fill("wide", shape, "float32", rng) for shape in ((channels, 5, columns), (outputs, channels, 2, 3), (outputs,))
    )
    expected = bits(by_hand(x, k, bias, (1, 1), (1, 1)).transpose(1, 2, 0).copy())
    tensors = [lab.asarray(array) for array in (x.transpose(1, 2, 0)[None], k.transpose(2, 3, 1, 0))]
    for _ in range(3):
        y = lab.corr2d(*tensors, bias=lab.asarray(bias), data_format="NHWC", reproducible=True)
        assert bits(lab.to_numpy(y)[0]) == expected


@pytest.mark.parametrize("kind", ["normal", "wide", "cancelling"])
def test_the_order_of_the_kernels_gradient(kind) -> None:
    rng = np.random.default_rng(2)
    x, dy = fill(kind, (9, 12), "float32", rng), fill(kind, (7, 9), "float32", rng)
    computed = reproducible_gradients(x, np.ones((3, 4), "float32"), dy)
    assert bits(computed.K) == bits(kernel_gradient_by_hand(x, dy, 3, 4))


def test_results_are_correctly_rounded(lab) -> None:
    """The nearest float32 to the exact sum: what a float64 sum gives but for one case in 2^29."""
    rng = np.random.default_rng(3)
    x, k = rng.standard_normal((8, 9)).astype("float32"), rng.standard_normal((3, 3)).astype("float32")
    y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), reproducible=True))
    for i, j in np.ndindex(y.shape):
        exact = sum(
            Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x[i : i + 3, j : j + 3].flat, k.flat, strict=True)
        )
        neighbours = (y[i, j], np.nextafter(y[i, j], np.float32(np.inf)), np.nextafter(y[i, j], np.float32(-np.inf)))
        assert min(neighbours, key=lambda value: abs(Fraction(float(value)) - exact)) == y[i, j]


def test_every_geometry_dtype_and_kind_of_data(lab) -> None:
    dtypes = [dtype for dtype in ("float16", "float32", "float64") if dtype in lab.adapter.dtypes]

    @settings(max_examples=12 if lab.name == "jax" else 80)
    @given(SEEDS, st.sampled_from(dtypes), st.sampled_from(KINDS))
    def check(seed, dtype, kind) -> None:
        case, rng = random_case(seed), np.random.default_rng(seed)
        X, K = fill(kind, case.X.shape, dtype, rng), fill(kind, case.K.shape, dtype, rng)
        outputs = 1 if K.ndim == 2 else K.shape[3] if case.options["data_format"] == "NHWC" else K.shape[0]
        bias = fill(kind, (outputs,), dtype, rng)
        with np.errstate(all="ignore"):
            expected = convlab.corr2d(X, K, bias=bias, reproducible=True, **case.options)
            dY = fill(kind, expected.shape, dtype, rng)
            slopes = reproducible_gradients(X, K, dY, **case.options)
            y = lab.corr2d(lab.asarray(X), lab.asarray(K), bias=lab.asarray(bias), reproducible=True, **case.options)
            assert bits(lab.to_numpy(y)) == bits(expected)
            if lab.adapter.autograd:
                computed = gradients(lab, X, K, bias, dY, reproducible=True, **case.options)
                for got, want in zip(computed, slopes, strict=True):
                    assert bits(got) == bits(want)

    check()


def test_bfloat16(lab) -> None:
    """Rounded twice, as documented: to float32, then to bfloat16."""
    rng = np.random.default_rng(0)
    x, k = (rng.integers(-128, 128, shape) / 16 for shape in ((2, 3, 6, 7), (4, 3, 3, 2)))  # exact in bfloat16
    if "bfloat16" not in lab.adapter.dtypes:
        with pytest.raises(DTypeError):
            lab.asarray(x, "bfloat16")
        return
    if lab.name == "numpy" and not importlib.util.find_spec("ml_dtypes"):
        return  # nobody can make such an array
    y = lab.corr2d(lab.asarray(x, "bfloat16"), lab.asarray(k, "bfloat16"), reproducible=True)
    whole = oracle(x, k).astype(np.float32).view(np.uint32).astype(np.uint64)
    nearest = (whole + 0x7FFF + (whole >> 16 & 1)) >> 16 << 16
    assert bits(lab.to_numpy(y)) == bits(nearest.astype(np.uint32).view(np.float32))


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.sampled_from(["float16", "float32", "float64"]))
def test_gradients_are_the_true_ones(seed, dtype) -> None:
    """NumPy's, which the others are held to, against the oracle; strides larger than the kernel, dilations and all."""
    case, rng = random_case(seed), np.random.default_rng(seed)
    X, K = case.X.astype(dtype), case.K.astype(dtype)
    dY = rng.standard_normal(oracle(X, K, **case.options).shape).astype(dtype)
    computed = reproducible_gradients(X, K, dY, **case.options)
    true, bounds = oracle_gradients(X, K, dY, **case.options), gradient_bounds(X, K, dY, dtype, **case.options)
    for got, want, bound in zip(computed, true, bounds, strict=True):
        assert got.dtype == dtype
        assert (np.abs(got - want) <= bound).all()


def test_zeros_are_positive(lab) -> None:
    """Also where float16 rounds to zero, and where products cancel or underflow."""
    for dtype, tiny in (("float16", 2.0**-20), ("float32", 2.0**-100), ("float64", 2.0**-900)):
        x, k = np.array([[-tiny, 0.0, -1.0, 1.0]], dtype), np.array([[tiny, 0.0]], dtype)
        y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), reproducible=True))
        assert not y[0, :2].any()
        assert not np.signbit(y[0, :2]).any()


def test_order_revealing_sums(lab) -> None:
    """X constant, K shuffled pairs of plus and minus big numbers: any other order gives another result."""
    rng = np.random.default_rng(0)
    for dtype, big in (("float32", 1e18), ("float64", 1e18), ("float16", 2.0**15)):
        pairs = rng.uniform(0.5, 1, 12) * big
        small = rng.standard_normal(25)
        K = rng.permutation(np.concatenate([pairs, -pairs, small])).reshape(7, 7).astype(dtype)
        X = np.ones((9, 8), dtype)
        with np.errstate(over="ignore"):
            y = lab.to_numpy(lab.corr2d(lab.asarray(X), lab.asarray(K), reproducible=True))
            total = 0.0
            for value in K.flat:
                total += float(value)
            assert bits(y) == bits(np.full((3, 2), total).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_learning_is_the_same_in_every_loss(lab, dtype) -> None:
    rng = np.random.default_rng(0)
    X, truth = rng.standard_normal((2, 9, 12)).astype(dtype), rng.standard_normal((3, 2)).astype(dtype)
    Y = oracle(X, truth).astype(dtype)
    expected = convlab.learn_kernel(X, Y, (3, 2), lr=1e-3, num_steps=40, reproducible=True)
    learned = lab.learn_kernel(lab.asarray(X), lab.asarray(Y), (3, 2), lr=1e-3, num_steps=40, reproducible=True)
    assert learned.losses == expected.losses
    assert bits(lab.to_numpy(learned.kernel)) == bits(expected.kernel)
    # … and it is gradient descent: the first loss and the last kernel against float64.
    start = np.random.default_rng(0).uniform(-(6**-0.5), 6**-0.5, (3, 2)).astype(dtype)
    first = ((oracle(X, start) - Y.astype(float)) ** 2).sum()
    assert learned.losses[0] == pytest.approx(first, rel=2e-2 if dtype == "float16" else 1e-5)
    assert learned.losses[-1] < learned.losses[0] / 10


def test_the_layer(lab) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2, 4, 7, 6)).astype("float32")
    spec = {"in_channels": 4, "out_channels": 6, "groups": 2, "padding": "same", "stride": 2, "seed": 3}
    expected = convlab.Conv2D(3, backend="numpy", reproducible=True, **spec)
    y = convlab.corr2d(X, expected.weight, bias=expected.bias, padding="same", stride=2, groups=2, reproducible=True)
    assert bits(expected(X)) == bits(y)
    layer = lab.Conv2D(3, reproducible=True, **spec)
    image = lab.asarray(X)
    if lab.name == "jax":
        import jax

        result = layer.apply(layer.init(jax.random.key(0), image), image)
    else:
        if lab.name == "mxnet":
            layer.initialize()
        result = layer(image)
    assert bits(lab.to_numpy(result)) == bits(y)


def test_integers_empty_batches_and_images_without_pixels(lab) -> None:
    y = lab.corr2d(lab.asarray(np.array([[1, 2, 4]])), [[1, 1]], reproducible=True)
    assert lab.to_numpy(y).tolist() == [[3, 6]]
    empty = lab.corr2d(lab.asarray(np.ones((0, 3, 3), "float32")), [[1.0]], reproducible=True)
    assert tuple(lab.ops.shape(empty)) == (0, 3, 3)
    frame = lab.corr2d(lab.asarray(np.ones((1, 0), "float32")), [[1.0]], padding=1, reproducible=True, bias=2.0)
    assert lab.to_numpy(frame).tolist() == [[2.0, 2.0]] * 3


def test_what_it_refuses(lab) -> None:
    with pytest.raises(GeometryError, match="Hint: reproducible=True has an algorithm of its own"):
        lab.corr2d(lab.asarray([[1.0]]), [[1.0]], reproducible=True, algorithm="native")
    one = [[1.0]]
    X, K = lab.asarray(one), lab.asarray(one)
    lab.corr2d(X, K, reproducible=True)
    with pytest.raises(GeometryError, match="algorithm: got 'reproducible'"):
        lab.corr2d(X, K, algorithm="reproducible")
    for call in (partial(lab.corr2d, one, one), partial(lab.Conv2D, 3), partial(lab.learn_kernel, one, one, 1)):
        with pytest.raises(GeometryError, match="reproducible: got 'no', expected True or False"):
            call(reproducible="no")
    if "complex64" in lab.adapter.dtypes:
        with pytest.raises(UnsupportedError, match="got dtype complex64"):
            lab.corr2d(lab.asarray(np.ones((2, 2), "complex64")), [[1.0]], reproducible=True)


PROGRAM = """
import sys, numpy as np, convlab
lab = convlab.backend(sys.argv[1])
from convlab.testing import gradients
if lab.name == "torch":
    import torch
    assert torch.get_num_threads() == 1
rng = np.random.default_rng(0)
X, K = rng.standard_normal((2, 5, 17, 23)).astype("float32"), rng.standard_normal((4, 5, 3, 5)).astype("float32")
y = lab.to_numpy(lab.corr2d(lab.asarray(X), lab.asarray(K), reproducible=True))
print(y.tobytes().hex())
if lab.adapter.autograd:
    for each in gradients(lab, X, K, np.zeros(4, "float32"), y, reproducible=True):
        print(each.tobytes().hex())
"""


def numpys_features() -> str:
    """The instruction sets that NumPy chooses at run time and this processor has, by the names that NumPy disables."""
    core = importlib.import_module("numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core")
    present = core._multiarray_umath.__cpu_features__
    return " ".join(name for name in core._multiarray_umath.__cpu_dispatch__ if present.get(name))


def test_one_thread_and_a_lower_instruction_set(lab) -> None:
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
    lower = {
        "ATEN_CPU_CAPABILITY": "default",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "NPY_DISABLE_CPU_FEATURES": numpys_features() if lab.name == "numpy" else "",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2 --xla_cpu_multi_thread_eigen=false",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, lab.name],
        env={**os.environ, **single, **lower},
        capture_output=True,
        text=True,
        check=True,
    )
    rng = np.random.default_rng(0)
    X, K = rng.standard_normal((2, 5, 17, 23)).astype("float32"), rng.standard_normal((4, 5, 3, 5)).astype("float32")
    y = convlab.corr2d(X, K, reproducible=True)
    expected = [y, *(reproducible_gradients(X, K, y) if lab.adapter.autograd else ())]
    assert done.stdout.split() == [each.tobytes().hex() for each in expected]
