"""`compare` says True only of models that compute the same: twins in PyTorch and Keras, and planted differences."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from making import port_parts, words
from torch import nn
from torch.nn import functional as F

from convlab import compare, port_weights
from convlab.errors import ModelError
from convlab.models.compare.report import as_dict, comparison_page

SIZE = 16


class Classifier(nn.Module):
    """Layers with weights, and functions between them."""

    def __init__(self, activation=F.relu, pool=F.max_pool2d, swapped=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, stride=2)
        self.fc = nn.Linear(6 * SIZE, 5)
        self.bn1.running_mean.uniform_(-0.5, 0.5)
        self.bn1.running_var.uniform_(0.5, 1.5)
        self.activation, self.pool, self.swapped = activation, pool, swapped

    def forward(self, x):
        x = self.bn1(self.conv1(x))
        x = self.activation(self.pool(x, 2)) if self.swapped else self.pool(self.activation(x), 2)
        return self.fc(torch.flatten(F.relu(self.conv2(x)), 1))


def keras_twin(original, *, activation="relu", pool=kl.MaxPooling2D, flat="CHW", same=False, swapped=False, size=SIZE):
    x = inputs = keras.Input((size, size, 3))
    conv1, bn1 = kl.Conv2D(6, 3, padding="same", name="conv1"), kl.BatchNormalization(epsilon=1e-5, name="bn1")
    conv2 = kl.Conv2D(6, 3, strides=2, padding="same" if same else "valid", name="conv2")
    dense = kl.Dense(5, name="fc")
    function = kl.ReLU(6.0) if activation == "relu6" else kl.Activation(activation)
    x = bn1(conv1(x))
    for layer in (pool(2), function) if swapped else (function, pool(2)):
        x = layer(x)
    x = kl.ReLU()(conv2(x if same else kl.ZeroPadding2D(1)(x)))
    model = keras.Model(inputs, dense(kl.Flatten()(kl.Permute((3, 1, 2))(x) if flat == "CHW" else x)))
    for layer, mine in ((conv1, original.conv1), (conv2, original.conv2)):
        layer.set_weights([mine.weight.detach().numpy().transpose(2, 3, 1, 0), mine.bias.detach().numpy()])
    state = original.bn1.state_dict()
    bn1.set_weights([state[name].numpy() for name in ("weight", "bias", "running_mean", "running_var")])
    dense.set_weights([original.fc.weight.detach().numpy().T, original.fc.bias.detach().numpy()])
    return model


@pytest.fixture(scope="module")
def original():
    return Classifier().eval()


@pytest.fixture(scope="module")
def twin(original):
    return keras_twin(original)


IMAGES = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype("float32")


def apart(a, b):
    """How far apart the results of the frameworks' own calls are, as a share of the largest."""
    with torch.no_grad():
        y = a(torch.from_numpy(IMAGES)).numpy()
    z = np.asarray(b(IMAGES.transpose(0, 2, 3, 1), training=False))
    return np.abs(y - z).max() / np.abs(y).max()


def test_twins_are_the_same(original, twin):
    assert apart(original, twin) < 1e-5
    for comparison in (compare(original, twin), compare(twin, original), compare(original, twin, IMAGES)):
        assert comparison.same is True
        assert comparison
        assert "The models compute the same results." in words(comparison)
    padded = next(row for row in comparison.rows if row.a == "conv2")
    # Keras pads in a layer of its own, which its graph shows.
    assert (padded.same, padded.elsewhere) == (True, False)
    assert all(compare(model, model).same is True for model in (original, twin))


@pytest.mark.parametrize(
    "fault",
    [
        {"flat": "HWC"},
        {"pool": kl.AveragePooling2D},
        {"activation": "relu6"},
        {"activation": "elu"},
        {"same": True},
        {"swapped": True, "pool": kl.AveragePooling2D},
    ],
    ids=str,
)
def test_what_stands_between_layers_is_compared(original, fault):
    other = keras_twin(original, **fault)
    # ReLU6 is ReLU up to 6.
    assert apart(original, other) > 1e-3 or fault == {"activation": "relu6"}
    for comparison in (compare(original, other), compare(other, original)):
        assert comparison.same is False
        assert not comparison
        assert "compute the same" not in words(comparison)
        assert any(said in words(comparison) for said in ("The outputs diverge at", "have different structures"))
    assert as_dict(comparison)["same"] is False


def test_classes_of_one_framework_that_differ_between_their_layers(original):
    for other in (Classifier(F.relu6), Classifier(F.gelu), Classifier(pool=F.avg_pool2d)):
        assert compare(original, other.eval()).same is False
    assert compare(Classifier(F.gelu), Classifier(lambda x: F.gelu(x, approximate="tanh"))).same is False
    # A maximum and a ReLU may change places.
    assert compare(original, Classifier(swapped=True).eval()).same is True
    assert compare(Classifier(pool=F.avg_pool2d), Classifier(pool=F.avg_pool2d, swapped=True)).same is False


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (IMAGES.transpose(0, 2, 3, 1), "can't be run on images of shape"),
        (np.ones((1, 3, 20, 20)), "can't be run on images of shape"),
        (np.ones((1, 4, SIZE, SIZE)), "can't be run on images of shape"),
        (np.where(IMAGES > 0, np.nan, IMAGES), "values that are NaN or infinite"),
        (np.full_like(IMAGES, np.inf), "values that are NaN or infinite"),
    ],
    ids=["NHWC", "size", "channels", "NaN", "inf"],
)
def test_inputs_that_cant_be_used_are_an_error(original, twin, inputs, reason):
    for pair in ((original, twin), (twin, original), (original, original), (twin, twin)):
        with pytest.raises(ModelError, match=reason):
            compare(*pair, inputs)


def test_inputs_of_which_results_do_not_depend_say_nothing():
    class Constant(nn.Module):
        def __init__(self, least):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 2, 3)
            self.register_buffer("least", torch.tensor(float(least)))

        def forward(self, x):
            return torch.relu(torch.sin(self.conv(x) * 0 - self.least))  # a function that convlab doesn't know

    comparison = compare(Constant(1), Constant(2))
    assert comparison.same is None
    assert "hardly depend on the images" in words(comparison)
    assert "the same" not in words(comparison)


def test_a_model_that_takes_no_random_image_is_not_called_the_same():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x, *, y):
            return self.conv(x) + self.conv(y)

    model = Two()
    comparison = compare(model, model)
    assert comparison.same is None
    assert "can't be run on images" in words(comparison)
    assert "the same" not in words(comparison)
    assert "Only parts" in comparison_page(comparison, "a", "b", "convlab compare a b")
    assert json.loads(json.dumps(as_dict(comparison)))["same"] is None
    with pytest.raises(ModelError, match="can't be run"):
        compare(model, model, IMAGES)
    with pytest.raises(ModelError, match="of which nothing can be compared"):
        compare(nn.LSTM(2, 3), nn.LSTM(2, 3))


class Residual(nn.Module):
    """Two sides that list the same layers in different orders."""

    def __init__(self, early, names=("conv1", "conv2", "bn1", "down")):
        super().__init__()
        torch.manual_seed(0)
        convolutions = {"conv1": nn.Conv2d(3, 4, 3, padding=1), "conv2": nn.Conv2d(4, 4, 3, padding=1)}
        layers = {**convolutions, "bn1": nn.BatchNorm2d(4), "down": nn.Conv2d(3, 4, 1)}
        self.names = dict(zip(layers, names, strict=True))
        for name in reversed(layers) if early else layers:
            self.add_module(self.names[name], layers[name])

    def forward(self, x):
        conv1, bn1, conv2, down = (getattr(self, self.names[each]) for each in ("conv1", "bn1", "conv2", "down"))
        return F.relu(conv2(F.relu(bn1(conv1(x)))) + down(x))


def pairs(comparison):
    """The layers with weights that were compared."""
    return [(row.a, row.b) for row in comparison.rows if row.kind in ("conv2d", "batch_norm")]


def test_layers_are_matched_by_name_then_by_weights():
    comparison = compare(Residual(False).eval(), Residual(True).eval())
    assert comparison.same is True
    assert pairs(comparison) == [(name, name) for name in ("conv1", "bn1", "conv2", "down")]
    renamed = compare(Residual(False).eval(), Residual(True, ("a", "b", "c", "d")).eval())
    assert renamed.same is True
    assert pairs(renamed) == [("conv1", "a"), ("bn1", "c"), ("conv2", "b"), ("down", "d")]


def test_a_border_of_its_own_is_no_difference():
    """A Keras ResNet has a ZeroPadding2D in front of a convolution that doesn't pad."""

    class Padded(nn.Module):
        def __init__(self, inside):
            super().__init__()
            torch.manual_seed(0)
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 7, 2, 3 * inside), nn.Conv2d(4, 2, 3, 2, 1 * inside)
            self.inside = inside

        def forward(self, x):
            # A function that convlab doesn't know.
            x = F.relu(self.conv1(torch.sin(x if self.inside else F.pad(x, (3,) * 4))))
            return self.conv2(x if self.inside else F.pad(x, (1,) * 4))

    comparison = compare(Padded(True), Padded(False))
    assert comparison.same is True
    assert comparison.first is None
    assert [(row.same, row.elsewhere) for row in comparison.rows] == [(False, True)] * 2
    difference = "layer 'conv1' and layer 'conv1' differ: the first pads 3 on each side, the second nothing"
    assert f"Compared by themselves, {difference}" in words(comparison)


@pytest.mark.parametrize("change", ["pool", "stride", "kernel", "activation", "features"])
def test_models_that_differ_before_a_dense_layer_give_a_report(change):
    def model(pool=2, stride=1, kernel=3, activation=nn.ReLU, features=6, size=SIZE):
        torch.manual_seed(0)
        maps = nn.Sequential(
            nn.Conv2d(3, features, kernel, stride, padding=kernel // 2), activation(), nn.MaxPool2d(pool), nn.Flatten()
        )
        return maps, nn.Linear(maps(torch.zeros(1, 3, size, size)).shape[1], 4)

    changes = {"pool": 4, "stride": 2, "kernel": 5, "activation": nn.Tanh, "features": 8}

    class Own(nn.Module):
        def __init__(self, **options):
            super().__init__()
            self.maps, self.fc = model(**options)

        def forward(self, x):
            return self.fc(self.maps(x))

    planted = {change: changes[change]}
    for a, b in ((nn.Sequential(*model()), nn.Sequential(*model(**planted))), (Own(), Own(**planted))):
        for inputs in (None, IMAGES):
            for pair in ((a, b), (b, a)):
                comparison = compare(*pair, inputs)
                assert comparison.same is False
                assert str(comparison)


def test_weights_for_a_model_that_flattens_in_another_order_are_reordered(original):
    for inputs in (None, IMAGES):
        other = keras_twin(Classifier(), flat="HWC")
        assert apart(original, other) > 0.1
        other.set_weights(list(port_weights(original.state_dict(), original, other, inputs=inputs).values()))
        assert apart(original, other) < 1e-5
    other = keras_twin(Classifier())
    other.set_weights([np.zeros_like(each) for each in other.get_weights()])
    other.set_weights(list(port_weights(original.state_dict(), original, other).values()))
    assert apart(original, other) < 1e-5


def test_an_order_that_cant_be_told_is_refused():
    """Nothing before the dense layer tells the channels."""
    dense = nn.Linear(12, 2)
    target = keras.Sequential([keras.Input((2, 2, 3)), kl.Flatten(), kl.Dense(2)])
    with pytest.raises(ModelError, match="its pixels are flattened pixel by pixel, the source's channel by"):
        port_weights(None, nn.Sequential(nn.Flatten(), dense), target)


class Scaled(nn.Module):
    """A parameter of no layer, a buffer, functions between layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.layer_scale = nn.Parameter(torch.full((8, 8), 1e-6))
        self.register_buffer("shift", torch.zeros(8, 8))

    def forward(self, x):
        return x + self.layer_scale * F.gelu(self.conv(x)) + self.shift


def test_what_is_not_carried_is_listed():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Scaled())
    ported = port_parts(model, r"layer_scale.*shift.*forward\(\)", to="tensorflow")
    assert list(ported.untouched) == ["1.layer_scale", "1.shift", "1.forward()"]
    assert "a parameter of shape (8, 8)" in ported.untouched["1.layer_scale"]
    assert "a buffer" in ported.untouched["1.shift"]
    assert "mul: it takes 1.layer_scale, which hasn't one number for each" in ported.untouched["1.forward()"]
    assert "the same" not in words(ported)
    with pytest.raises(ModelError, match="layer_scale"):
        _ = ported.model


def test_keras_lists_what_is_not_carried():
    class Shift(kl.Layer):
        def build(self, shape):
            self.shift = self.add_weight(shape=(8, 8, 3), name="shift")

        def call(self, x):
            return keras.ops.flip(x, 1) + self.shift

    inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(3, 1, name="conv")(inputs)
    model = keras.Model(inputs, keras.ops.add(Shift(name="mine")(x), inputs))
    ported = port_parts(model, r"mine.*call\(\)", to="torch")
    assert list(ported.untouched) == ["mine", "mine/shift", "call()"]
    assert "operations between layers (mine/flip: convlab doesn't know it" in ported.untouched["call()"]
