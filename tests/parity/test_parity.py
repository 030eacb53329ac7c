"""Identical results: bit for bit on integer-valued data, within the rounding bound on any other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

import convlab
from convlab import chapter
from convlab.testing import descent, gradients, oracle_gradients
from convlab.testing.tasks import compute_task
from convlab.testing.trials import random_trials
from convlab.truth.oracle import oracle

SEEDS = st.integers(0, 2**32 - 1)
FLOATS = st.sampled_from(["float16", "bfloat16", "float32", "float64"])


def examples(lab, count: int) -> settings:
    """XLA compiles every new shape: JAX gets a quarter of the examples."""
    return settings(max_examples=count // 4 if lab.name == "jax" else count)


def rounded(lab, array, dtype):
    """The array's tensor in `dtype`, and the float64 values that it really holds."""
    if array is None:
        return None, None
    tensor = lab.asarray(array, dtype)
    return tensor, lab.to_numpy(tensor).astype(np.float64)


def drawable(lab, dtype: str) -> str:
    return dtype if dtype in lab.adapter.dtypes and (dtype != "bfloat16" or lab.name != "numpy") else "float32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("groups", [1, 2])
def test_one_output_column_of_a_strided_image(lab, data_format, dilation, groups, dtype) -> None:
    """Where oneDNN, under PyTorch and TensorFlow, returns whatever is in memory: so fill that with garbage first."""
    dtype, rng = drawable(lab, dtype), np.random.default_rng(0)
    options = {"stride": (1, 3), "dilation": dilation, "data_format": data_format, "groups": groups}
    for width in (4, 5, 6) if lab.name != "jax" else (5,):
        x, k = rng.integers(-4, 5, (2, groups, 9, width)), rng.integers(-4, 5, (groups, 1, 3, 4))
        if data_format == "NHWC":
            x, k = x.transpose(0, 2, 3, 1), k.transpose(2, 3, 1, 0)
        for _ in range(5):
            garbage = lab.asarray(rng.standard_normal(100_000) * 1e15, "float32")
            garbage = garbage * garbage
            del garbage
            y = lab.corr2d(lab.asarray(x, dtype), lab.asarray(k, dtype), **options)
            np.testing.assert_array_equal(lab.to_numpy(y), oracle(x, k, **options))
            if not lab.adapter.autograd or dtype == "bfloat16":
                continue
            dy = rng.integers(-4, 5, y.shape)
            arrays = (a.astype(dtype) for a in (x, k, np.zeros(groups), dy))
            expected = oracle_gradients(x, k, dy, **options)
            for got, want in zip(gradients(lab, *arrays, **options), expected, strict=True):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kernel", [(2, 2), (4, 3, 2, 2)])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_no_images_leave_no_trace(lab, kernel, dtype) -> None:
    """An empty batch gives an empty result, zero gradients, and calls after it work."""
    shape, bias = ((0, 3, 5, 6), (1,)) if len(kernel) == 2 else ((0, 3, 5, 6), (4,))
    x, k, b = (lab.asarray(np.ones(s), dtype) for s in (shape, kernel, bias))
    for options in ({}, {"padding": 1, "padding_mode": "reflect", "stride": 2}):
        y = lab.corr2d(x, k, bias=b, **options)
        expected = (0, 3, 4, 5) if len(kernel) == 2 else (0, 4, 4, 5)
        assert tuple(lab.ops.shape(y)) == (expected if not options else (*expected[:2], 3, 4))
        if dtype == "float32" and lab.adapter.autograd:
            found = gradients(
                lab, np.ones(shape, dtype), np.ones(kernel, dtype), np.ones(bias, dtype), lab.to_numpy(y), **options
            )
            assert found.X.shape == shape
            assert found.K.shape == kernel
            assert not found.K.any()
            assert not found.bias.any()
    one = lab.corr2d(lab.asarray(np.ones((2, 2)), dtype), [[1, 1]], bias=[1])
    assert lab.to_numpy(one).tolist() == [[3], [3]]


def test_every_pair_of_backends_agrees_exactly_on_integers(backends) -> None:
    for seed in range(5):
        trial = next(random_trials(seed))
        assert trial.name == f"random {seed} integers"
        results = {
            name: compute_task(convlab.backend(name), trial.request, trial.arrays)["result"] for name in backends
        }
        for name, y in results.items():
            assert y.tobytes() == results[backends[0]].tobytes(), (name, backends[0], seed)


@pytest.mark.parametrize(("shape", "dtype"), [((6, 8), "float32"), ((2, 5, 7), "float32"), ((6, 8), "float64")])
def test_learning_walks_the_same_path(lab, shape, dtype) -> None:
    rng = np.random.default_rng(0)
    X, truth, init = rng.standard_normal(shape), rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
    X, Y, init = X.astype(dtype), oracle(X, truth).astype(dtype), init.astype(dtype)
    found = lab.learn_kernel(lab.asarray(X), lab.asarray(Y), (2, 3), init=init, lr=1e-3, num_steps=20)
    path = descent(X, Y, init, lr=1e-3, num_steps=20, dtype=dtype)
    assert path.kernel_bound < (1e-4 if dtype == "float32" else 1e-13)
    assert lab.ops.dtype(found.kernel) == dtype
    assert (np.abs(lab.to_numpy(found.kernel) - path.kernel) <= path.kernel_bound).all()
    assert (np.abs(np.array(found.losses) - path.losses) <= path.loss_bounds).all()


def test_seeded_learning_starts_from_the_same_kernel(lab) -> None:
    X = chapter.edge_image()
    Y = oracle(X, chapter.EDGE_KERNEL).astype("float32")
    found = lab.learn_kernel(lab.asarray(X), lab.asarray(Y), (1, 2), seed=3, num_steps=0)
    expected = np.random.default_rng(3).uniform(-(0.5**0.5), 0.5**0.5, (1, 2)).astype("float32")
    np.testing.assert_array_equal(lab.to_numpy(found.kernel), expected)
    assert found.losses == []


def test_integers_with_many_channels_and_beyond_float64(lab) -> None:
    """Both ways of computing integers: by float64 where sums stay below 2**53, in int64 above."""
    rng = np.random.default_rng(0)
    X, K = rng.integers(-128, 128, (2, 16, 9, 9)), rng.integers(-128, 128, (8, 16, 3, 3))
    for scale in (1, 2**20):
        x, k, b = X * scale, K * scale, np.arange(8) * scale
        y = lab.corr2d(lab.asarray(x), lab.asarray(k), bias=lab.asarray(b), padding=1)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
        expected = (windows[:, None].astype(object) * k[None, :, :, None, None].astype(object)).sum((2, 5, 6))
        assert (lab.to_numpy(y).astype(object) == expected + b.reshape(-1, 1, 1)).all()


@pytest.mark.parametrize("bias", [3, [3], True])
def test_integers_with_a_plain_bias(lab, bias) -> None:
    y = lab.corr2d(lab.asarray(np.array([[1, 2, 4]])), [[1, 1]], bias=bias)
    assert lab.to_numpy(y).tolist() == [[6, 9]] if bias is not True else [[4, 7]]
    assert lab.ops.dtype(y) == "int64"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_go_where_ieee_puts_them(lab, value) -> None:
    X = np.ones((5, 6), "float32")
    X[2, 3] = value
    K = np.array([[1.0, -2.0], [3.0, 4.0]], "float32")
    y = lab.to_numpy(lab.corr2d(lab.asarray(X), lab.asarray(K)))
    expected = np.full((4, 5), 6.0)
    for p in range(2):
        for q in range(2):
            expected[2 - p, 3 - q] = value * K[p, q]
    np.testing.assert_array_equal(y, expected)
