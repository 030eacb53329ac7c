"""Keras's models of sequences and volumes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from convlab import port


def functional():
    """Strides with "same" padding, which is uneven, and causal ones; shortcuts; separable layers."""
    inputs = keras.Input((17, 3))
    x = kl.Conv1D(8, 4, strides=2, padding="same", activation="relu")(inputs)
    x = kl.Add()([x, kl.Conv1D(8, 3, padding="causal", dilation_rate=2)(x)])
    x = kl.SeparableConv1D(5, 3, padding="same")(kl.MaxPooling1D(3, 2, "same")(x))
    x = kl.SpatialDropout1D(0.1)(kl.Concatenate()([x, kl.Conv1D(2, 1)(x)]))
    return keras.Model(inputs, kl.Dense(3, activation="softmax")(kl.Flatten()(x)))


class Own(keras.Model):
    """A `call` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.dense = kl.Conv1D(4, 5, strides=3), kl.BatchNormalization(), kl.Dense(2)

    def call(self, x):
        return self.dense(keras.ops.mean(keras.ops.relu(self.norm(self.conv(x))), axis=1))

    def get_config(self):
        return {}


def own():
    model = Own()
    model(np.zeros((1, 20, 1), "float32"))
    return model


def pixels():
    """What computes the channels of each place, with a crop and a slope for each channel."""
    layers = [kl.Dense(6), kl.LayerNormalization(), kl.DepthwiseConv1D(3), kl.PReLU(shared_axes=[1])]
    return keras.Sequential([keras.Input((None, 3)), *layers, kl.Cropping1D((1, 0)), kl.GlobalAveragePooling1D()])


def volumes():
    layers = [kl.Conv3D(4, (3, 2, 3), strides=(2, 1, 1)), kl.BatchNormalization(), kl.LeakyReLU()]
    layers += [kl.AveragePooling3D((2, 1, 2)), kl.GlobalMaxPooling3D(), kl.Dense(3)]
    return keras.Sequential([keras.Input((None, None, None, 2)), *layers])


def decoder():
    """Transposed convolutions, whose "same" takes off what its `output_padding` says."""
    inputs = keras.Input((6, 4))
    x = kl.Conv1DTranspose(5, 4, strides=3, padding="same", activation="relu")(inputs)
    x = kl.Conv1DTranspose(3, 3, strides=2, padding="same", output_padding=1)(x)
    return keras.Model(inputs, kl.Conv1DTranspose(2, 2, strides=3)(x))


def deep_decoder():
    layers = [kl.Conv3DTranspose(3, (2, 3, 4), strides=(1, 2, 2), padding="same"), kl.ReLU(), kl.Conv3D(2, 1)]
    return keras.Sequential([keras.Input((None, None, None, 2)), *layers])


MODELS = {
    functional: (2, 17, 3),
    own: (2, 23, 1),
    pixels: (2, 9, 3),
    volumes: (2, 9, 8, 7, 2),
    decoder: (2, 6, 4),
    deep_decoder: (2, 3, 4, 5, 2),
}


@pytest.mark.parametrize("make", MODELS)
def test_models(make) -> None:
    """What is ported computes the same, without convlab."""
    model, rng = make(), np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 0.9, array.shape).astype(array.dtype) for array in model.get_weights()])
    x = rng.normal(size=MODELS[make]).astype("float32")
    ported = port(model, to="tensorflow")
    assert ported.evidence.same
    assert not ported.untouched
    expected = np.asarray(model(x))
    assert np.abs(np.asarray(ported.model(x)) - expected).max() <= 1e-5 * np.abs(expected).max()
