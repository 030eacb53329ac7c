"""Variables that the code of a Keras layer takes: a scale of channels, a class token, positions."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

from convlab import load, port_weights, save
from convlab.errors import ModelError
from convlab.models.adapters import read

X = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")


class Scale(kl.Layer):
    """A variable before and behind a tensor."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[-1:], initializer="normal")
        self.beta = self.add_weight(shape=(1, 1, 1, *shape[-1:]), initializer="normal")

    def call(self, x):
        return self.gamma * x + self.beta


class Computed(Scale):
    def call(self, x):
        return x * ops.exp(self.gamma)


class Token(kl.Layer):
    def build(self, shape):
        self.cls = self.add_weight(shape=(1, 1, shape[-1]), initializer="normal")

    def call(self, x):
        return ops.concatenate([ops.broadcast_to(self.cls, (ops.shape(x)[0], 1, x.shape[-1])), x], axis=1)


class Positions(kl.Layer):
    """The rows of an embedding."""

    def __init__(self, **options):
        super().__init__(**options)
        self.rows = kl.Embedding(17, 3, embeddings_initializer="normal")

    def build(self, shape):
        self.rows.build(shape)

    def call(self, x):
        return x + self.rows(ops.arange(17))


def scaled(kind=Scale):
    image = keras.Input((4, 4, 3))
    return keras.Model(image, kind(name="scale")(kl.Conv2D(3, 1, name="conv")(image)))


def transformer():
    image = keras.Input((4, 4, 3))
    tokens = Positions(name="positions")(Token(name="token")(kl.Reshape((16, 3))(image)))
    tokens = kl.MultiHeadAttention(1, 3, name="attention")(tokens, tokens)
    return keras.Model(image, kl.Dense(2, name="head")(tokens[:, 0]))


def result(model):
    return np.asarray(model(X))


@pytest.mark.parametrize("make", [scaled, transformer])
def test_a_layers_own_arrays_come_with_the_others(make, tmp_path):
    source, target = make(), make()
    save(source, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", into=target)
    np.testing.assert_array_equal(result(loaded), result(source))
    assert not np.array_equal(result(target), result(source))
    target.set_weights([*port_weights(None, source, target).values()])
    np.testing.assert_array_equal(result(target), result(source))


def test_their_layers_have_their_names():
    assert [part.path for part in read(scaled()).parts] == ["conv", "scale/gamma", "scale/beta"]


def test_an_array_that_is_computed_is_refused(tmp_path):
    save(scaled(Computed), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"^scale/multiply: got other numbers than those that the model's code"):
        load(tmp_path / "model.safetensors", into=scaled(Computed))
