"""`reproducible=True` in TensorFlow's graphs and under XLA: the bits of NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from revealing import OPTIONS, arrays

import convlab
from convlab.testing import reproducible_gradients

pytestmark = pytest.mark.usefixtures("way")


def same(tensor, array: np.ndarray) -> bool:
    return tensor.numpy().tobytes() == array.tobytes()


def with_gradients(x, k, b, dy):
    with tf.GradientTape() as tape:
        tape.watch((x, k, b))
        y = convlab.corr2d(x, k, bias=b, reproducible=True, **OPTIONS)
    return y, *tape.gradient(y, (x, k, b), output_gradients=dy)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tf_function_with_gradients(dtype, compiled) -> None:
    x, k, b, y, dy = arrays(dtype)
    results = tf.function(with_gradients, jit_compile=compiled)(*map(tf.constant, (x, k, b, dy)))
    for got, want in zip(results, (y, *reproducible_gradients(x, k, dy, **OPTIONS)), strict=True):
        assert same(got, want)


@pytest.mark.parametrize("compiled", [False, True])
def test_graphs_keep_the_order(compiled) -> None:
    """TensorFlow's optimiser regroups chains of additions; X constant and K of cancelling pairs show it."""
    rng = np.random.default_rng(0)
    for dtype, big in (("float32", 1e18), ("float64", 1e18)):
        pairs = rng.uniform(0.5, 1, 12) * big
        k = rng.permutation(np.concatenate([pairs, -pairs, rng.standard_normal(25)])).reshape(7, 7).astype(dtype)
        x = np.ones((9, 8), dtype)
        function = tf.function(lambda x, k: convlab.corr2d(x, k, reproducible=True), jit_compile=compiled)
        assert same(function(x, tf.constant(k)), convlab.corr2d(x, k, reproducible=True))


def test_an_unknown_batch() -> None:
    x, k, b, y, dy = arrays()
    shapes = [(None, *x.shape[1:]), k.shape, b.shape, (None, *dy.shape[1:])]
    function = tf.function(with_gradients, input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes])
    results = function(*map(tf.constant, (x, k, b, dy)))
    for got, want in zip(results, (y, *reproducible_gradients(x, k, dy, **OPTIONS)), strict=True):
        assert same(got, want)


def test_an_unknown_image_is_refused() -> None:
    function = tf.function(
        lambda x: convlab.corr2d(x, [[1.0]], reproducible=True), input_signature=[tf.TensorSpec((None, 5), tf.float32)]
    )
    with pytest.raises(Exception, match="Hint: give the image's height and width"):
        function(tf.ones((2, 5)))


def test_second_derivatives() -> None:
    x, k, b, _, dy = map(tf.constant, arrays())
    with tf.GradientTape() as outer:
        outer.watch(k)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = convlab.corr2d(x, k, bias=b, reproducible=True, **OPTIONS)
        slope = inner.gradient(y, x, output_gradients=dy)
        total = tf.reduce_sum(slope * x)
    assert same(outer.gradient(total, k), reproducible_gradients(*(v.numpy() for v in (x, k, dy)), **OPTIONS).K)


def test_keras_fit() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 6, 6, 2)).astype("float32"), rng.standard_normal((8, 6, 6, 3)).astype("float32")
    weights = []
    for jit in (False, True):
        layer = convlab.tensorflow.Conv2D(
            3, out_channels=3, padding="same", data_format="NHWC", seed=0, reproducible=True
        )
        model = keras.Sequential([layer])
        model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="mse", jit_compile=jit)
        model.fit(x, y, batch_size=8, epochs=1, verbose=0, shuffle=False)
        weights.append(layer.weight.numpy())
    expected = convlab.Conv2D(3, in_channels=2, out_channels=3, data_format="NHWC", seed=0, backend="numpy").weight
    assert np.abs(weights[0] - expected).max() > 1e-6  # it learned
    assert weights[0].tobytes() == weights[1].tobytes()
