"""`conv_transpose2d` on TensorFlow: beside Keras's own layer, in graphs, and its derivatives."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import convlab
from convlab.testing import oracle, transposed_oracle

rng = np.random.default_rng(0)
Y = tf.constant(rng.integers(-8, 9, (2, 4, 5, 6)), tf.float32)
K = tf.constant(rng.integers(-8, 9, (4, 3, 3, 2)), tf.float32)
OPTIONS = [{}, {"stride": 2, "padding": "same"}, {"stride": (2, 1), "output_padding": (1, 0), "padding": 1}]


def check(function, y, k, **options) -> None:
    """The function's result and its gradient of Y."""
    y, k = tf.convert_to_tensor(y), tf.convert_to_tensor(k)
    with tf.GradientTape() as tape:
        tape.watch(y)
        x = function(y, k)
    expected = transposed_oracle(y, k, **options)
    np.testing.assert_array_equal(x, expected)
    fitted = {name: value for name, value in options.items() if name != "output_padding"}
    slope = tape.gradient(x, y, output_gradients=tf.constant(expected, tf.float32))
    np.testing.assert_array_equal(slope, oracle(expected, k, **fitted))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_tf_function_with_gradients(options, reproducible, compiled) -> None:
    function = tf.function(
        lambda y, k: convlab.conv_transpose2d(y, k, **options, reproducible=reproducible), jit_compile=compiled
    )
    check(function, Y, K, **options)
    check(function, Y[0, 0], K[0, 0], **options)


@pytest.mark.parametrize("shape", [(None, 4, 5, 6), (None, 4, None, None)])
@pytest.mark.parametrize("options", [*OPTIONS, {"dilation": 2, "stride": (3, 2)}])
def test_unknown_sizes(shape, options) -> None:
    @tf.function(input_signature=[tf.TensorSpec(shape), tf.TensorSpec((4, 3, 3, 2))])
    def function(y, k):
        return convlab.conv_transpose2d(y, k, **options)

    check(function, Y, K, **options)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None)), tf.TensorSpec((3, 2))])
    def images(y, k):
        return convlab.conv_transpose2d(y, k, **options)

    check(images, Y[0], K[0, 0], **options)


def test_unknown_sizes_of_groups() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, 4, None, None))])
    def function(y):
        return convlab.conv_transpose2d(y, K, groups=2, stride=2), convlab.conv_transpose2d(y, K[:, :1], groups=4)

    for x, (k, options) in zip(function(Y), ((K, {"groups": 2, "stride": 2}), (K[:, :1], {"groups": 4})), strict=True):
        np.testing.assert_array_equal(x, transposed_oracle(Y, k, **options))


def test_what_needs_the_size_says_so() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, None))])
    def function(y):
        return convlab.conv_transpose2d(y, [[1, 2]], reproducible=True)

    with pytest.raises(Exception, match=r"UnsupportedError: X: got an image of size \(None, None\) while tracing"):
        function(Y[0, 0])


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (4, 2), (2, 3), (4, 3), (5, 2), (1, 2), (3, 1)])
def test_kerass_own_layer(size, stride, padding) -> None:
    """Its kernel is HWIO as it is; where a kernel is smaller than the stride, "valid" makes room for a whole stride."""
    image = tf.transpose(Y, (0, 2, 3, 1))
    layer = keras.layers.Conv2DTranspose(3, size, stride, padding)
    layer(image)
    layer.set_weights([rng.integers(-8, 9, each.shape).astype("float32") for each in layer.get_weights()])
    more = max(stride - size, 0) if padding == "valid" else 0
    kernel, bias = layer.kernel, layer.bias
    options = {"stride": stride, "padding": padding, "output_padding": more, "data_format": "NHWC"}
    np.testing.assert_array_equal(convlab.conv_transpose2d(image, kernel, bias=bias, **options), layer(image))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [*OPTIONS, {"dilation": 2, "groups": 2}])
def test_second_derivatives(options, dtype) -> None:
    """The gradient by K of the sum of dY * x**2 / 2's gradient by Y, exactly."""
    y, k = tf.cast(Y, dtype), tf.cast(K, dtype)
    with tf.GradientTape() as outer:
        outer.watch(k)
        with tf.GradientTape() as inner:
            inner.watch(y)
            x = convlab.conv_transpose2d(y, k, **options)
        slope = inner.gradient(x, y, output_gradients=tf.stop_gradient(x))
    second = outer.gradient(slope, k, output_gradients=y)
    # <y, corr2d(x, k)> is <x, conv_transpose2d(y, k)>, whose gradient by k is that of corr2d at (x, y).
    with tf.GradientTape() as tape:
        tape.watch(k)
        product = tf.reduce_sum(convlab.conv_transpose2d(y, k, **options) * tf.stop_gradient(x))
    assert float(tf.reduce_sum(second * k)) == float(tf.reduce_sum(x * x))
    np.testing.assert_array_equal(second, tape.gradient(product, k))
