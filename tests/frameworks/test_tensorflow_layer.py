"""convlab's layer as users of `keras.layers.Conv2D` know theirs, with the same weights; images of unknown sizes."""

from __future__ import annotations

import keras
import native_arguments
import numpy as np
import pytest
import tensorflow as tf

import convlab
from convlab import errors
from convlab import tensorflow as lab
from convlab.testing import oracle
from convlab_tensorflow.layers import NATIVE

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 9, 8, 3)).astype("float32")
OPTIONS = (
    {"strides": 2, "padding": "same", "activation": "swish", "kernel_initializer": keras.initializers.HeNormal(3)},
    {
        "padding": "valid",
        "dilation_rate": (2, 1),
        "kernel_initializer": keras.initializers.GlorotNormal(5),
        "bias_initializer": "ones",
        "kernel_regularizer": "l2",
        "bias_regularizer": keras.regularizers.L1(0.1),
        "activity_regularizer": keras.regularizers.L2(0.01),
        "kernel_constraint": keras.constraints.MaxNorm(0.5, axis=[0, 1, 2]),
        "bias_constraint": "non_neg",
        "name": "first",
    },
    {"groups": 3, "use_bias": False, "activation": keras.activations.tanh, "kernel_initializer": "ones"},
)


def pair(**options):
    """Keras's layer and convlab's, made by the same call."""
    return keras.layers.Conv2D(6, 3, **options), lab.Conv2D(6, 3, data_format="channels_last", **options)


def test_every_argument_of_kerass_is_known() -> None:
    assert native_arguments.unknown_arguments(NATIVE, keras.layers.Conv2D.__init__) == []
    assert native_arguments.positional(keras.layers.Conv2D.__init__) == list(NATIVE.order)


@pytest.mark.parametrize("options", OPTIONS)
def test_kerass_arguments(options, tmp_path) -> None:
    """The same initial values, losses, training and, from a file, the same layer again."""
    models = [keras.Sequential([keras.Input((9, 8, 3)), layer]) for layer in pair(**options)]
    theirs, ours = models
    np.testing.assert_array_equal(ours.get_weights()[0], theirs.get_weights()[0])
    np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-5, atol=1e-6)
    for model in models:
        model.compile("sgd", "mse")
        model.fit(X, np.ones(theirs(X).shape), epochs=3, verbose=0)
    np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([float(n) for n in ours.losses], [float(n) for n in theirs.losses], rtol=1e-5)
    ours.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded(X).numpy() == ours(X).numpy()).all()
    assert [float(n) for n in loaded.losses] == [float(n) for n in ours.losses]
    assert loaded.layers[0].get_config() == ours.layers[0].get_config()
    assert (loaded.layers[0].kernel_constraint is None) == (options.get("kernel_constraint") is None)
    assert convlab.compare(theirs, ours).same


def test_an_initialiser_draws_the_same_kernel_in_either_layout() -> None:
    first, last = (
        lab.Conv2D(6, 3, data_format=layout, kernel_initializer=keras.initializers.HeNormal(3))
        for layout in ("channels_first", "channels_last")
    )
    first.build((1, 3, 9, 8))
    last.build((1, 9, 8, 3))
    np.testing.assert_array_equal(first.weight.numpy().transpose(2, 3, 1, 0), last.weight)


@pytest.mark.parametrize("stride", [1, 2, 3, (2, 1), (1, 3)])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
def test_images_of_unknown_size(stride, kernel_size) -> None:
    theirs = keras.layers.Conv2D(5, kernel_size, strides=stride, padding="same")
    ours = lab.Conv2D(5, kernel_size, strides=stride, padding="same", data_format="NHWC")
    image = keras.Input((None, None, 3))
    models = keras.Model(image, theirs(image)), keras.Model(image, ours(image))
    assert models[0].output_shape == models[1].output_shape
    ours.set_weights(theirs.get_weights())
    run = [tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))]) for model in models]
    for size in ((1, 1), (4, 5), (7, 9), (8, 8)):
        x = tf.constant(rng.standard_normal((2, *size, 3)), tf.float32)
        for expected, found in (run, models):
            np.testing.assert_allclose(found(x), expected(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", ["same", "same_lower"])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_every_border_of_unknown_size(mode, padding, data_format) -> None:
    k = rng.integers(-4, 5, (4, 3, 3, 2)).astype("float32")
    k = k if data_format == "NCHW" else k.transpose(2, 3, 1, 0)
    options = {"padding": padding, "padding_mode": mode, "stride": (2, 3), "dilation": (1, 2)}
    options["data_format"] = data_format
    function = tf.function(
        lambda x: convlab.corr2d(x, k, **options), input_signature=[tf.TensorSpec((None, None, None, None))]
    )
    for size in ((9, 8), (5, 8), (6, 7)):
        x = rng.integers(-4, 5, (2, 3, *size)).astype("float32")
        x = x if data_format == "NCHW" else x.transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(function(x), oracle(x, k, **options))


def test_gradients_and_integers_of_unknown_size() -> None:
    options = {"padding": "same", "stride": 2}
    x, k = tf.constant(X[0, :, :, 0]), tf.constant([[1.0, -2.0, 3.0]])

    @tf.function(input_signature=[tf.TensorSpec((None, None)), tf.TensorSpec((1, 3))])
    def slopes(x, k):
        with tf.GradientTape() as tape:
            tape.watch((x, k))
            y = tf.reduce_sum(convlab.corr2d(x, k, **options) ** 2)
        return tape.gradient(y, (x, k))

    with tf.GradientTape() as tape:
        tape.watch((x, k))
        image = tf.reshape(x, (1, 9, 8, 1))
        y = tf.reduce_sum(tf.nn.conv2d(image, tf.reshape(k, (1, 3, 1, 1)), 2, "SAME") ** 2)
    for found, expected in zip(slopes(x, k), tape.gradient(y, (x, k)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    function = tf.function(
        lambda x: convlab.corr2d(x, [[1, -2, 3]], **options), input_signature=[tf.TensorSpec((None, 8), tf.uint8)]
    )
    pixels = rng.integers(0, 256, (7, 8)).astype("uint8")
    np.testing.assert_array_equal(function(pixels), oracle(pixels, [[1, -2, 3]], **options))


def refused(layer, x):
    with pytest.raises(errors.ConvlabError) as caught:
        layer(x)
    return caught.value


def test_keras_leaves_errors_as_they_are() -> None:
    """Their type, and a message that begins with what is wrong: in a layer, a model and its prediction."""

    def model():
        return keras.Sequential([lab.Conv2D(3, in_channels=3, out_channels=4, data_format="NHWC")])

    for call in (model(), model().predict, keras.Sequential([keras.Input((None, None, 3)), *model().layers])):
        error = refused(call, np.ones((1, 2, 2, 3), "float32"))
        assert type(error) is errors.ShapeError
        assert str(error).startswith("K: got a kernel of height 3 (dilation counted) on an image of height 2")
    error = refused(lab.Conv2D(3, out_channels=4, groups=2, data_format="NHWC"), np.ones((1, 5, 5, 3)))
    assert str(error).startswith("groups: got 2, expected a divisor of in_channels=3.")
    error = refused(model(), np.ones((1, 5, 5, 4)))
    assert str(error).startswith("X: got 4 channels in (1, 5, 5, 4) (NHWC), expected 3: K (HWIO) has 3 input channels")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": "same", "dilation": 2}, {"groups": 2, "padding": 1, "padding_mode": "reflect"}],
)
def test_gradients_of_complex_numbers(options, dtype, compiled) -> None:
    """TensorFlow's gradient of a real loss L by z = a + ib is dL/da + i dL/db.

    Here L = sum(|y|^2), whose gradients by a and by b are those of four real correlations, by real autodiff.
    """

    def drawn(*shape):
        return tf.constant(rng.standard_normal(shape) + 1j * rng.standard_normal(shape), dtype)

    x, k, b = drawn(2, 4, 8, 9), drawn(6, 4 // options.get("groups", 1), 3, 2), drawn(6)
    function = tf.function(lambda *z: convlab.corr2d(z[0], z[1], bias=z[2], **options), jit_compile=compiled)
    with tf.GradientTape() as tape:
        tape.watch((x, k, b))
        loss = tf.reduce_sum(tf.abs(function(x, k, b)) ** 2)
    found = tape.gradient(loss, (x, k, b))
    parts = [(tf.math.real(z), tf.math.imag(z)) for z in (x, k, b)]
    with tf.GradientTape() as tape:
        tape.watch(parts)
        (xr, xi), (kr, ki), (br, bi) = parts
        real = convlab.corr2d(xr, kr, bias=br, **options) - convlab.corr2d(xi, ki, **options)
        imaginary = convlab.corr2d(xr, ki, bias=bi, **options) + convlab.corr2d(xi, kr, **options)
        loss = tf.reduce_sum(real**2 + imaginary**2)
    for slope, (da, db) in zip(found, tape.gradient(loss, parts), strict=True):
        assert slope.dtype == dtype
        tolerance = 1e-5 if dtype == "complex64" else 1e-13
        expected = tf.complex(da, db).numpy()
        np.testing.assert_allclose(slope, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lab.Conv2D(filter=8, kernel_size=3), errors.OptionError, "Hint: did you mean filters"),
        (lambda: lab.Conv2D(8, 3, filters=3), errors.OptionError, "filters: got out_channels twice"),
        (lambda: lab.Conv2D(filters=3), errors.OptionError, "kernel_size: got none"),
        (lambda: lab.Conv2D(3, channels=8), errors.OptionError, "Hint: write out_channels=8"),
        (lambda: lab.Conv2D(3, seed=0, kernel_initializer="zeros"), errors.OptionError, "seed, kernel_initializer"),
        (lambda: lab.Conv2D(8, 3, padding="causal"), errors.GeometryError, "padding: got 'causal'"),
    ],
)
def test_what_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def test_an_image_that_looks_channels_last() -> None:
    with pytest.warns(errors.LayoutWarning, match=r"X: got shape \(1, 16, 16, 3\), which looks like \(H, W, C\)"):
        lab.Conv2D(8, 3)(np.ones((1, 16, 16, 3)))
    lab.Conv2D(8, 3, data_format="channels_first")(np.ones((1, 16, 16, 3)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_policy_is_compared_and_ported(policy) -> None:
    """The layer computes in the narrower dtype, as Keras's own does."""
    layer = lab.Conv2D(6, 3, dtype=policy, data_format="channels_last")
    layer(X)
    assert convlab.compare(layer, layer).same
    ported = convlab.port(layer, to="tensorflow")
    assert ported.evidence.same


@pytest.mark.parametrize("size", [(28, 28), (None, None)])
def test_a_layout_that_is_missing_is_asked_for(size) -> None:
    with pytest.raises(errors.ShapeError, match=r"Hint: data_format='NHWC' if the last axis is the channels\."):
        lab.Conv2D(4, 3)(keras.Input((*size, 1)))


def test_kerass_attributes() -> None:
    theirs, ours = pair(strides=2, dilation_rate=1, groups=3, use_bias=False)
    for layer in (theirs, ours):
        layer(X)
    for name in ("filters", "kernel_size", "strides", "dilation_rate", "data_format", "groups", "use_bias"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.kernel.shape == theirs.kernel.shape
    assert ours.kernel is ours.weight
