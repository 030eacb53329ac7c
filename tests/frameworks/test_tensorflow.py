"""convlab inside TensorFlow and Keras: tapes, tf.function, unknown sizes, layers, saving, fit."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import convlab
from convlab import errors
from convlab import tensorflow as lab
from convlab.testing import error_bound
from convlab.truth.oracle import oracle

rng = np.random.default_rng(0)
X = tf.constant(rng.standard_normal((2, 3, 8, 9)), tf.float32)
K = tf.constant(rng.standard_normal((4, 3, 3, 2)), tf.float32)


def close(y, x, k, **options) -> bool:
    x, k = np.asarray(x), np.asarray(k)
    return bool((np.abs(np.asarray(y) - oracle(x, k, **options)) <= error_bound(x, k, **options)).all())


OPTIONS = [{}, {"padding": "same", "stride": 2}, {"padding": 1, "padding_mode": "circular"}]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_tf_function(options, compiled) -> None:
    function = tf.function(lambda x, k: convlab.corr2d(x, k, **options), jit_compile=compiled)
    assert close(function(X, K), X, K, **options)
    assert close(function(X[0, 0], K[0, 0]), X[0, 0], K[0, 0], **options)


@pytest.mark.parametrize("shape", [(None, 3, 8, 9), (None, 3, None, None)])
def test_tf_function_with_unknown_sizes(shape) -> None:
    @tf.function(input_signature=[tf.TensorSpec(shape), tf.TensorSpec((4, 3, 3, 2))])
    def function(x, k):
        return convlab.corr2d(x, k, padding="same", stride=1)

    assert close(function(X, K), X, K, padding="same")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None))])
    def images(x):
        return convlab.corr2d(x, convlab.filters.box_blur(2))

    assert close(images(X[0]), X[0], np.full((2, 2), 0.25, "float32"))


def test_what_needs_the_size_says_so() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, None))])
    def function(x):
        return convlab.corr2d(x, [[1, 2]], **options)

    # Inside a function that AutoGraph rewrites, TensorFlow wraps every error but a few of its own.
    options = {"padding": "same", "stride": 2, "reproducible": True}
    with pytest.raises(Exception, match=r"UnsupportedError: X: got an image of size \(None, None\) while tracing"):
        function(X[0, 0])


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "replicate", "circular"])
def test_padding_modes_of_unknown_sizes(mode) -> None:
    options = {"padding": ((1, 2), (3, 0)), "padding_mode": mode}
    function = tf.function(
        lambda x, k: convlab.corr2d(x, k, **options),
        input_signature=[tf.TensorSpec((None, None, None)), tf.TensorSpec((2, 3))],
    )
    kernel = K[0, 0, :2, :2].numpy().repeat(2, 1)[:, :3]
    for size in ((1, 1), (2, 1), (3, 5)):  # the border may be wider than the image
        images = X[0, :, : size[0], : size[1]]
        assert close(function(images, kernel), images, kernel, **options)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [{"groups": 3}, {"dilation": 2}, {"dilation": (1, 2), "groups": 3, "stride": 2, "padding": ((1, 0), (0, 2))}],
)
def test_second_derivatives(options, dtype) -> None:
    """Also where TensorFlow's CPU has no gradient. corr2d is linear in X and K: d/dX of dK . v is its own gradient."""
    x, k = tf.cast(X, dtype), tf.cast(K[:3, :1] if "groups" in options else K, dtype)
    v = tf.ones_like(k)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(k)
            y = tf.reduce_sum(convlab.corr2d(x, k, **options))
        product = tf.reduce_sum(inner.gradient(y, k) * v)
    with tf.GradientTape() as direct:
        direct.watch(x)
        y = tf.reduce_sum(convlab.corr2d(x, v, **options))
    np.testing.assert_allclose(
        outer.gradient(product, x), direct.gradient(y, x), rtol=1e-2 if dtype == "float16" else 1e-5
    )


def test_variables_and_keras_variables() -> None:
    assert close(convlab.corr2d(tf.Variable(X), tf.Variable(K)), X, K)
    assert close(convlab.corr2d(X, keras.Variable(K)), X, K)


def test_integers_in_a_graph_of_unknown_sizes() -> None:
    function = tf.function(
        lambda x: convlab.corr2d(x, [[1, -1]], padding=1), input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)]
    )
    images = np.arange(12, dtype="uint8").reshape(2, 2, 3)
    np.testing.assert_array_equal(function(images), oracle(images, [[1, -1]], padding=1))
    with pytest.raises(Exception, match="UnsupportedError: X: got a tensor of unknown rank"):
        tf.function(lambda x: convlab.corr2d(x, [[1, -1]]), input_signature=[tf.TensorSpec(None, tf.uint8)])(images)


def test_integers_in_a_graph() -> None:
    images = tf.constant([[250, 3, 255]], tf.uint8)
    y = tf.function(lambda x: convlab.corr2d(x, [[1, -1]]))(images)
    assert y.dtype == tf.int64
    assert y.numpy().tolist() == [[247, -252]]


# The layer.


def test_the_chapters_layer() -> None:
    layer = lab.Conv2D((1, 2))
    assert isinstance(layer, keras.layers.Layer)
    image = tf.constant(convlab.chapter.edge_image())
    layer(image)
    assert [(w.name, tuple(w.shape)) for w in layer.weights] == [("weight", (1, 2)), ("bias", (1,))]
    layer.set_weights([np.array([[1.0, -1.0]]), np.zeros(1)])
    assert layer(image)[0].numpy().tolist() == [0, 1, 0, 0, 0, -1, 0]
    # Exercise 3: its gradient raises nothing.
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(layer(image))
    weight, bias = tape.gradient(y, [w.value for w in layer.weights])
    assert weight.numpy().tolist() == [[float(image.numpy()[:, :-1].sum()), float(image.numpy()[:, 1:].sum())]]
    assert bias.numpy().tolist() == [42]


def test_initial_values() -> None:
    ours, theirs = lab.Conv2D(3, out_channels=64), keras.layers.Conv2D(64, 3)
    ours.build((1, 32, 5, 5))
    theirs.build((1, 5, 5, 32))
    assert tuple(ours.weight.shape) == (64, 32, 3, 3)
    assert float(np.std(ours.weight)) == pytest.approx(float(np.std(theirs.kernel)), rel=0.05)
    seeded = lab.Conv2D(3, out_channels=6, groups=2, seed=7)
    seeded.build((1, 4, 5, 5))
    bound = 1 / np.sqrt(18)
    expected = np.random.default_rng(7).uniform(-bound, bound, (6, 2, 3, 3)).astype("float32")
    assert seeded.weight.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_serialisation_round_trip(tmp_path, data_format) -> None:
    shape = (3, 8, 9) if data_format == "NCHW" else (8, 9, 3)
    layer = lab.Conv2D(
        3, out_channels=4, stride=(2, 1), padding=((1, 0), (0, 1)), padding_mode="reflect", data_format=data_format
    )
    model = keras.Sequential([keras.Input(shape), layer, keras.layers.ReLU()])
    x = X if data_format == "NCHW" else tf.transpose(X, (0, 2, 3, 1))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded(x).numpy() == model(x).numpy()).all()
    model.save_weights(tmp_path / "model.weights.h5")
    again = keras.models.clone_model(model)
    again.load_weights(tmp_path / "model.weights.h5")
    assert (again(x).numpy() == model(x).numpy()).all()
    assert lab.Conv2D.from_config(layer.get_config()).get_config() == layer.get_config()
    assert model.output_shape == (None, *model(x).shape[1:])


def test_a_saved_model_is_tensorflows(tmp_path) -> None:
    model = keras.Sequential([keras.Input((8, 9, 3)), lab.Conv2D(3, out_channels=4, data_format="NHWC")])
    model.export(tmp_path / "saved", verbose=False)
    x = tf.transpose(X, (0, 2, 3, 1))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(x), model(x), rtol=1e-5, atol=1e-6)


def test_output_shape_of_unknown_sizes() -> None:
    layer = lab.Conv2D(3, out_channels=4, padding="same", data_format="NHWC")
    assert layer.compute_output_shape((None, None, None, 3)) == (None, None, None, 4)
    assert lab.Conv2D((1, 2)).compute_output_shape((None, 6, 8)) == (None, 6, 7)


def test_layers_keep_what_they_were_given() -> None:
    """Neither asking for a shape nor being built changes a layer's configuration."""
    layer = lab.Conv2D(3, out_channels=4, groups=2, data_format="NHWC", stride=np.int64(2))
    assert layer.compute_output_shape((None, 5, None, 4)) == (None, 2, None, 4)
    with pytest.raises(errors.GeometryError, match="divisor of in_channels=3"):
        layer.build((1, 5, 5, 3))
    layer.build((1, 5, 5, 6))
    config = layer.get_config()
    assert config["in_channels"] is None
    assert type(config["stride"][0]) is int
    assert lab.Conv2D.from_config(config)(tf.ones((1, 5, 5, 2))).shape == (1, 2, 2, 4)


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_layers_are_floating(dtype) -> None:
    with pytest.raises(errors.DTypeError, match=f"dtype: got {dtype}, expected a floating dtype"):
        lab.Conv2D(3, dtype=dtype)


def test_keras_tensors_are_refused() -> None:
    with pytest.raises(errors.ConvlabError, match="X: "):
        convlab.corr2d(keras.Input((6, 8)), [[1.0, -1.0]])


def test_lists_of_tensors_are_refused() -> None:
    """They would lose their gradients silently."""
    w = tf.Variable(1.0)
    with pytest.raises(errors.DTypeError, match="K: got a list of tensors"):
        convlab.corr2d(X, [[w, -w]])


def test_strided_gradients_stay_within_their_memory() -> None:
    """TensorFlow's gradient kernel overruns its buffers where a stride leaves rows over; then processes crash."""
    code = """
import numpy as np, tensorflow as tf, convlab
from convlab import tensorflow as lab
from convlab.testing import gradients, oracle_gradients
rng = np.random.default_rng(0)
for trial in range(600):
    (H, W), (h, w), stride = rng.integers(4, 13, 2), rng.integers(1, 4, 2), tuple(map(int, rng.integers(1, 4, 2)))
    x, k = rng.integers(-4, 5, (2, 2, H, W)).astype("f4"), rng.integers(-4, 5, (3, 2, h, w)).astype("f4")
    dy = rng.integers(-4, 5, convlab.output_shape(x.shape, k.shape, stride=stride)).astype("f4")
    found = gradients(lab, x, k, np.zeros(3, "f4"), dy, stride=stride)
    assert all(map(np.array_equal, found, oracle_gradients(x, k, dy, stride=stride)))
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_training_in_an_ordinary_model() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((1, 6, 6)),
            lab.Conv2D(3, out_channels=4, padding="same"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    images = np.random.default_rng(1).standard_normal((64, 1, 6, 6)).astype("float32")
    labels = (images.mean((1, 2, 3)) > 0).astype("float32")
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
    losses = model.fit(images, labels, epochs=40, batch_size=64, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 4


def test_mixed_precision() -> None:
    layer = lab.Conv2D(3, out_channels=4, dtype="mixed_bfloat16")
    y = layer(X)
    assert y.dtype == tf.bfloat16
    assert layer.weight.dtype == "float32"


def test_matches_kerass_own_layer() -> None:
    x = tf.transpose(X, (0, 2, 3, 1))
    theirs = keras.layers.Conv2D(4, 3, strides=2, padding="same")
    ours = lab.Conv2D(3, out_channels=4, stride=2, padding="same", data_format="NHWC")
    theirs(x)
    ours(x)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


def test_keras_on_another_backend_is_named(monkeypatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(errors.BackendBroken, match=r"Keras runs on jax, .* Hint: set KERAS_BACKEND=tensorflow"):
        lab.Conv2D(3)


@pytest.mark.parametrize("known", [True, False], ids=["known size", "unknown size"])
def test_one_output_column_of_a_strided_image(known) -> None:
    """TensorFlow's own kernel returns what happens to be in memory here: one channel, stride (1, s), one column."""
    function = lambda x, k: convlab.corr2d(x, k, stride=(1, 2))  # noqa: E731
    if not known:
        signature = [tf.TensorSpec((None, 1, None, None)), tf.TensorSpec((2, 1, 3, 2))]
        function = tf.function(function, input_signature=signature)
    k = rng.integers(-9, 10, (2, 1, 3, 2)).astype("float32")
    for trial in range(20):
        x = rng.integers(-9, 10, (1 + trial % 4, 1, 4 + trial // 4, 2 + trial % 5)).astype("float32")
        garbage = tf.random.normal((100_000,)) * 1e30
        del garbage  # the result gets its memory
        np.testing.assert_array_equal(function(tf.constant(x), tf.constant(k)), oracle(x, k, stride=(1, 2)))
