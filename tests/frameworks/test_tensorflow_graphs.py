"""Keras models with branches, and with a `call` of their own: read as graphs, and ported whole."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras_layers import models
from making import port_parts

from convlab import port
from convlab.errors import PartialPortWarning

X = np.random.default_rng(0).normal(size=(2, 12, 11, 3)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Squeeze(kl.Layer):
    """A squeeze-and-excite with a `call` of its own (arXiv:1709.01507)."""

    def __init__(self, **options):
        super().__init__(**options)
        self.down, self.up = kl.Dense(2, activation="relu"), kl.Dense(4, activation="hard_sigmoid")

    def call(self, x):
        share = self.up(self.down(keras.ops.mean(x, axis=(1, 2))))
        return x * kl.Reshape((1, 1, 4))(share)


def functional():
    image = keras.Input((None, None, 3))
    x = kl.Rescaling(1 / 4, offset=-0.5)(image)
    x = keras.Sequential([kl.Conv2D(4, 3, padding="same"), kl.BatchNormalization()], name="stem")(x)
    y = keras.ops.relu(kl.Conv2D(4, 3, padding="same", activation="hard_silu", name="branch")(x))
    y = kl.Dropout(0.2, noise_shape=(None, 1, 1, 1))(y)
    z = kl.Concatenate()([kl.Add()([x, y]), kl.MaxPooling2D(3, 1, "same")(x)]) * 0.5 + 1
    return keras.Model(image, kl.Dense(5, "softmax")(kl.GlobalAveragePooling2D()(z)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.squeeze = kl.Conv2D(4, 3, strides=2, padding="same"), Squeeze()
        self.last = kl.Dense(3)

    def call(self, x):
        y = self.squeeze(self.first(x))
        return self.last(keras.ops.max(keras.ops.concatenate([y, y + 1], -1), axis=(1, 2)))


class DepthToSpace(kl.Layer):
    """A layer of anyone's, as Keras's examples have it for super-resolution (arXiv:1609.05158)."""

    def call(self, x):
        n, rows, columns, channels = keras.ops.shape(x)
        squares = keras.ops.reshape(x, (n, rows, columns, 2, 2, channels // 4))
        squares = keras.ops.transpose(squares, (0, 1, 3, 2, 4, 5))
        return keras.ops.reshape(squares, (n, rows * 2, columns * 2, channels // 4))


class Operations(keras.Model):
    """Functions of `keras.ops` and `keras.activations` between layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = kl.Conv2D(8, 3, padding="same"), kl.Conv2D(2, 1), kl.Dense(3)

    def call(self, x):
        y = keras.ops.gelu(keras.activations.relu(self.first(x), negative_slope=0.2, max_value=None))
        y = keras.ops.leaky_relu(self.second(keras.activations.elu(y)), 0.3)
        y = keras.ops.elu(keras.activations.relu(y, max_value=6.0), 0.5)
        return keras.ops.softmax(self.last(keras.ops.reshape(y, (-1, 12 * 11 * 2))))


def upscaling():
    image = keras.Input((None, None, 3))
    x = kl.Lambda(lambda x: tf.nn.depth_to_space(x, 2))(kl.Conv2D(8, 3)(image))
    x = keras.ops.depth_to_space(kl.Conv2D(16, 1)(DepthToSpace()(kl.Conv2D(8, 1)(x))), 2)
    return keras.Model(image, kl.Lambda(lambda x: keras.ops.repeat(x, 2, axis=2))(x))


def randomly(model):
    model(X)
    rng = np.random.default_rng(1)
    # Variances are to be positive.
    model.set_weights([rng.uniform(0.1, 0.6, array.shape) for array in model.get_weights()])
    return model


@pytest.mark.parametrize("make", [functional, Subclassed, Operations, upscaling])
def test_ported_whole(make):
    model = randomly(make())
    ported = port(model, to="tensorflow", inputs=X.transpose(0, 3, 1, 2))
    assert ported.evidence.same
    assert ported.untouched == {}
    assert ported.model(X).numpy() == pytest.approx(model(X).numpy(), rel=1e-5, abs=1e-6)


def test_layers_for_training_alone_are_left_out() -> None:
    augmentation = keras.Sequential([kl.RandomFlip("horizontal"), kl.RandomRotation(0.1)], name="augmentation")
    image = keras.Input((12, 11, 3))
    x = kl.GaussianNoise(0.1)(kl.Conv2D(4, 3)(kl.RandomZoom(0.2)(augmentation(image))))
    both = (keras.Model(image, kl.Dense(2)(kl.Flatten()(x))), keras.Sequential([augmentation, kl.Conv2D(4, 3)]))
    for model in map(randomly, both):
        with pytest.warns(
            PartialPortWarning, match=r"all that inference needs was ported.*\n  augmentation/random_flip.*: Random"
        ):
            ported = port(model, to="tensorflow")
        assert ported.evidence.same
        assert all("does nothing in inference" in why for why in ported.untouched.values())
        assert ported.model(X).numpy() == pytest.approx(model(X, training=False).numpy(), rel=1e-5, abs=1e-5)


def test_a_ported_model_is_trained_and_saved(tmp_path):
    ported = port(randomly(functional()), to="tensorflow").model
    before = ported(X).numpy()
    ported.compile("sgd", "mse")
    ported.fit(X, np.zeros((2, 5)), verbose=0)
    assert not np.array_equal(ported(X).numpy(), before)
    ported.save(tmp_path / "model.keras")
    assert np.array_equal(keras.saving.load_model(tmp_path / "model.keras")(X).numpy(), ported(X).numpy())


def test_paths():
    paths = [part.path for part in models.read(randomly(functional())).parts]
    assert {"stem/conv2d", "stem/batch_normalization"} <= {path.rstrip("_0123456789") for path in paths}
    assert "relu" in paths
    assert "branch" in paths


class Numbers(keras.Model):
    """Operations on each number, and a learned one for all."""

    def __init__(self):
        super().__init__()
        self.conv = kl.Conv2D(4, 3)
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        ops, y = keras.ops, self.conv(x) * self.scale
        y = ops.sqrt(ops.abs(y)) / ops.exp(ops.clip(y, -1, 0.5))
        return kl.ReLU(0.75)(ops.minimum(ops.maximum(y, 0.1), 2.0))


def test_operations_on_each_number(tmp_path):
    model = randomly(Numbers())
    ported = port(model, to="tensorflow")
    assert ported.evidence.same
    assert ported.untouched == {}
    expected = model(X).numpy()
    assert ported.model(X).numpy() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    ported.model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras")(X).numpy() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert len(ported.model.trainable_weights) == 3


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda x: keras.ops.flip(x, 1), "flip: convlab doesn't know it"),
        (lambda x: keras.ops.mean(x, axis=2, keepdims=True) * x, r"mean: it reduces the axes .*2.*, expected \(1, 2\)"),
        (lambda x: kl.Lambda(lambda x: keras.ops.cumsum(x, axis=1))(x), "cumsum: convlab doesn't know it"),
        (lambda x: kl.Dropout(0.5)(x, training=True), "dropout.* is called with training"),
    ],
)
def test_what_isnt_known_is_named(operation, words):
    image = keras.Input((8, 8, 3))
    ported = port_parts(keras.Model(image, operation(kl.Conv2D(3, 3, name="conv")(image))), words, to="tensorflow")
    assert next(iter(ported.layers)) == "conv"


def pair_of_images():
    """A functional model of an image and of a smaller one of another number of channels."""
    left, right = keras.Input((16, 16, 3), name="left"), keras.Input((8, 8, 1), name="right")
    pooled = kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3)(left))
    return keras.Model([left, right], kl.Dense(3)(kl.Concatenate()([pooled, kl.Flatten()(kl.Conv2D(2, 3)(right))])))


class OfAList(keras.Model):
    """A `call` that takes its two tensors in a list."""

    def __init__(self):
        super().__init__()
        self.inner = pair_of_images()

    def call(self, inputs):
        return self.inner(inputs) * 2.0


@pytest.mark.parametrize("kind", ["functional", "inside another", "a list"])
def test_images_of_different_sizes(kind):
    rng = np.random.default_rng(2)
    given = [rng.normal(size=shape).astype("float32") for shape in ((2, 16, 16, 3), (2, 8, 8, 1))]
    model = OfAList() if kind == "a list" else pair_of_images()
    if kind == "inside another":
        symbols = keras.Input((16, 16, 3)), keras.Input((8, 8, 1))
        model = keras.Model(symbols, kl.ReLU()(model([*symbols])))
    expected = model(given).numpy()
    assert expected.std() > 1e-2
    # Only a functional model says what sizes it takes.
    images = tuple(np.moveaxis(x, -1, 1) for x in given) if kind == "a list" else None
    ported = port(model, to="tensorflow", inputs=images)
    assert ported.evidence.same
    np.testing.assert_allclose(ported.model(given).numpy(), expected, rtol=1e-4, atol=1e-5)
