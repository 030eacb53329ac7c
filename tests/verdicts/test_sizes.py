"""Models that take one size of image only are proven and compared at that size."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from making import words
from torch import nn

import convlab
from convlab import compare, port
from convlab.errors import ModelError

TARGETS = ("torch", "jax", "jax.nnx", "mxnet", "tensorflow")


def functional(size=(16, 18)):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*size, 3))
    x = kl.Conv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
    x = kl.Flatten()(kl.MaxPooling2D(2)(x))
    return keras.Model(inputs, kl.Dense(3)(x))


def ndarray(model, images):
    """The result of a framework's own call for images NCHW."""
    if isinstance(model, nn.Module):
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()
    return np.asarray(model(images.transpose(0, 2, 3, 1)))


@pytest.mark.parametrize(
    ("to", "given"), [*((name, {}) for name in TARGETS), ("torch", {"input_size": (16, 18)})], ids=str
)
def test_a_keras_model_of_a_fixed_size(to, given):
    model = functional()
    ported = port(model, to=to, **given)
    assert ported.evidence.same is True
    assert {size for row in ported.evidence.rows[:1] for size in row.sizes} == {(16, 18)}
    if to == "torch":
        images = np.random.default_rng(0).normal(size=(2, 3, 16, 18)).astype("float32")
        assert np.allclose(ndarray(ported.model, images), ndarray(model, images), atol=1e-5)


def test_other_sizes_are_refused_in_words():
    model = functional()
    for options in ({"input_size": 32}, {"inputs": np.ones((1, 3, 32, 32))}):
        with pytest.raises(ModelError, match="expected 16x18, the only size that the model takes"):
            port(model, to="torch", **options)
    with pytest.raises(ModelError, match="can't be run on images of shape"):
        compare(model, model, np.ones((1, 3, 32, 32)))


def test_comparing_models_of_fixed_sizes():
    model = functional()
    assert compare(model, model).same is True
    assert compare(model, port(model, to="torch").model).same is True
    assert compare(port(model, to="torch").model, model).same is True
    wide = keras.models.clone_model(model)
    wide.set_weights([each * 1.001 for each in model.get_weights()])
    assert compare(model, wide).same is False
    layers = [kl.Conv2D(4, 3, name="conv"), kl.GlobalAveragePooling2D()]
    small, large = (keras.Sequential([keras.Input((size, size, 3)), *layers]) for size in (12, 20))
    # Keras runs the large model on images of 12x12 all the same.
    comparison = compare(small, large)
    assert comparison.same is None
    assert "takes images of 12x12 pixels, the second of 20x20" in words(comparison)


def test_a_keras_model_that_starts_with_flatten_keeps_its_order():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 5, 2)), kl.Flatten(), kl.Dense(3)])
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(40, 3))
    wrong[1].weight.data = torch.from_numpy(model.get_weights()[0].T)
    assert compare(model, wrong).same is False
    ported = port(model, to="torch")
    images = np.random.default_rng(0).normal(size=(2, 2, 4, 5)).astype("float32")
    assert np.allclose(ndarray(ported.model, images), ndarray(model, images), atol=1e-6)


@pytest.mark.parametrize(
    ("to", "before"),
    [*((name, []) for name in TARGETS if name != "jax"), ("tensorflow", [nn.ReLU()]), ("tensorflow", [nn.Tanh()])],
    ids=str,
)
def test_a_padded_maximum_of_negative_numbers(to, before):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *before, nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 2, 1))
    model[0].bias.data -= 3  # Zeros in the border would now be the greatest.
    ported = port(model, to=to)
    assert ported.evidence.same is True
    assert compare(ported.model, model).same is True
    if to == "tensorflow":
        images = np.random.default_rng(0).normal(size=(2, 3, 12, 11)).astype("float32")
        y = np.asarray(ported.model(images.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
        assert np.allclose(y, ndarray(model, images), atol=1e-5)
        names = [type(layer).__name__ for layer in ported.model.layers]
        positive = any(isinstance(layer, nn.ReLU) for layer in before)
        assert ("ZeroPadding2D" if positive else "LowestPadding2D") in names


def test_a_border_of_minus_infinity_survives_kerass_own_files(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1))
    ported = port(model, to="tensorflow").model
    ported.save(tmp_path / "model.keras")
    assert compare(model, keras.models.load_model(tmp_path / "model.keras")).same is True
    convlab.save(ported, tmp_path / "keras.safetensors")
    convlab.save(model, tmp_path / "torch.safetensors")
    assert (tmp_path / "keras.safetensors").read_bytes() == (tmp_path / "torch.safetensors").read_bytes()


def test_torch_models_with_convlabs_own_layers():
    lab = convlab.torch

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = lab.Conv2D(3, out_channels=4, in_channels=3, padding="same", seed=0)
            self.second = lab.Conv2D(5, out_channels=2, in_channels=4, stride=2, seed=1)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    for make in (Net, lambda: nn.Sequential(*Net().children())):
        model = make()
        for setting in (torch.enable_grad(), torch.no_grad(), torch.inference_mode()):
            with setting:
                assert compare(model, make()).same is True
        model.requires_grad_(False)
        assert compare(model, make()).same is True
        assert all(parameter.grad is None for parameter in model.parameters())
    assert port(make(), to="torch", layers="convlab").evidence.same is True
