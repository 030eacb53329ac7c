"""Keras's norms, transposed and separable convolutions, crops and upsampling."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from making import port_parts

from convlab import compare, port, port_weights
from convlab.models.adapters import read

X = np.random.default_rng(5).normal(size=(2, 9, 8, 4)).astype("float32")


def shaken(model):
    """The model, with numbers in all weights that aren't those of a new one."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, array.shape).astype(array.dtype) for array in model.get_weights()])
    return model


def check(model) -> None:
    """What is ported computes the same, without convlab."""
    shaken(model)
    ported = port(model, to="tensorflow")
    assert ported.evidence.same
    assert not ported.untouched
    expected = np.asarray(model(X))
    assert np.abs(np.asarray(ported.model(X)) - expected).max() <= 1e-5 * np.abs(expected).max()


LAYERS = {
    "layer norm": lambda: kl.LayerNormalization(epsilon=1e-2),
    "layer norm without shift": lambda: kl.LayerNormalization(center=False),
    "group norm": lambda: kl.GroupNormalization(2, epsilon=1e-2),
    "instance norm": lambda: kl.GroupNormalization(-1, scale=False),
    "normalisation": lambda: kl.Normalization(mean=[0.5, 1, 2, 3], variance=[1, 2, 3, 4]),
    "rescaling": lambda: kl.Rescaling([1.0, 2.0, 3.0, 4.0], 0.5),
    "transposed, same": lambda: kl.Conv2DTranspose(3, 3, 2, "same"),
    "transposed, valid": lambda: kl.Conv2DTranspose(3, 3, (2, 1), "valid", use_bias=False),
    "transposed, small": lambda: kl.Conv2DTranspose(3, 2, 3, "valid"),
    "transposed, small and same": lambda: kl.Conv2DTranspose(3, 2, 3, "same"),
    "transposed, more": lambda: kl.Conv2DTranspose(3, 3, 2, "same", output_padding=1),
    "separable": lambda: kl.SeparableConv2D(5, 3, 2, "same", depth_multiplier=2, activation="relu"),
    "separable without bias": lambda: kl.SeparableConv2D(5, (3, 2), use_bias=False),
    "crop": lambda: kl.Cropping2D(((1, 0), (2, 3))),
    "nearest": lambda: kl.UpSampling2D((2, 3)),
    "bilinear": lambda: kl.UpSampling2D(2, interpolation="bilinear"),
    "to a size": lambda: kl.Resizing(5, 20),
    "to a size, nearest": lambda: kl.Resizing(5, 20, "nearest"),
    "dense of pixels": lambda: kl.Dense(5, activation="gelu"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name) -> None:
    check(keras.Sequential([keras.Input((9, 8, 4)), LAYERS[name]()]))


def test_layers_of_nchw() -> None:
    layers = [kl.SeparableConv2D(5, 3, data_format="channels_first"), kl.LayerNormalization(axis=1)]
    model = shaken(keras.Sequential([keras.Input((4, 9, 8)), *layers]))
    assert port(model, to="tensorflow").evidence.same


REFUSED = {
    "another axis": (lambda: kl.LayerNormalization(axis=2), "axes"),
    "of one length": (lambda: kl.UnitNormalization(axis=2), "it reduces the axes"),
    "bicubic": (lambda: kl.UpSampling2D(2, interpolation="bicubic"), "bicubic"),
    "smoothed": (lambda: kl.Resizing(5, 5, antialias=True), "antialias"),
    "cut": (lambda: kl.Resizing(5, 5, crop_to_aspect_ratio=True), "crop_to_aspect_ratio"),
    "a scale for each pixel": (lambda: kl.Rescaling(np.ones((9, 8, 4)).tolist()), "shapes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name) -> None:
    layer, why = REFUSED[name]
    port_parts(keras.Sequential([keras.Input((9, 8, 4)), kl.Conv2D(4, 1), layer()]), why, to="tensorflow")


@keras.saving.register_keras_serializable(package="tests")
class LayerScale(kl.Layer):
    """As in keras.applications.ConvNeXtTiny."""

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=(input_shape[-1],), name="gamma")

    def call(self, x):
        return x * self.gamma


def block():
    """ConvNeXt's block, as keras.applications writes it."""
    x = image = keras.Input((9, 8, 4))
    y = kl.DepthwiseConv2D(7, padding="same")(x)
    y = kl.LayerNormalization(epsilon=1e-6)(y)
    y = kl.Dense(4, name="narrow")(kl.Activation("gelu")(kl.Dense(16)(y)))
    return keras.Model(image, kl.Add()([x, LayerScale(name="scale")(y)]))


def test_a_block_with_a_layer_scale() -> None:
    check(block())
    kinds = {part.path: part.layer.kind for part in read(block()).parts}
    assert kinds["narrow"] == "conv2d"
    assert "channel_affine" in kinds.values()
    ported = port(shaken(block()), to="tensorflow").model
    scale = ported.get_layer("scale.gamma")
    assert [variable.name for variable in scale.trainable_variables] == ["gamma"]


def test_what_is_ported_can_be_saved(tmp_path) -> None:
    """Keras finds the classes of its own and of convlab's layers in the file."""
    ported = port(shaken(block()), to="tensorflow").model
    ported.save(path := tmp_path / "m.keras")
    again = keras.saving.load_model(path)
    np.testing.assert_array_equal(np.asarray(again(X)), np.asarray(ported(X)))


def test_weights_of_a_separable_convolution_are_carried() -> None:
    def model(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential(
            [keras.Input((9, 8, 4)), kl.SeparableConv2D(5, 3), kl.Dense(3), kl.LayerNormalization()]
        )

    source, target = shaken(model(0)), model(1)
    target.set_weights([*port_weights(None, source, target).values()])
    assert compare(source, target).same


def test_a_resize_in_code() -> None:
    image = keras.Input((9, 8, 4))
    resized = keras.ops.image.resize(kl.Conv2D(3, 1)(image), (5, 20), interpolation="nearest")
    check(keras.Model(image, resized))


def test_squares_of_pixels_as_channels() -> None:
    """Anyone's layer that moves numbers is known by what it does."""
    image = keras.Input((8, 8, 4))
    squares = kl.Lambda(lambda x: tf.nn.space_to_depth(x, 2), output_shape=(4, 4, 12))(kl.Conv2D(3, 1)(image))
    model = shaken(keras.Model(image, kl.Conv2D(2, 1)(squares)))
    ported = port(model, to="tensorflow")
    assert "pixel_unshuffle" in [row.kind for row in ported.evidence.rows]
    assert np.abs(ported.model(X[:, :8]) - model(X[:, :8])).max() < 1e-4
