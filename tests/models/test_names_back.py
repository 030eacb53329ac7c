"""Layers keep their names: what comes back from another framework has the state dict of the original."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from chains import conv, norm
from making import run
from sources import net
from torch import nn

from convlab import port_weights
from convlab.models.adapters import models_of, read
from convlab.models.layers.activations import Activation
from convlab.models.layers.reading import INPUT
from convlab.models.layers.sized import for_size
from convlab.models.port.lowering import Lowering
from convlab.models.port.port import assembled


def port(model, to, size=None):
    """The model that `convlab.port` makes, without its proof, which takes seconds."""
    target = models_of(to)
    return assembled(target, Lowering(for_size(read(model), size), target, "builtin", size).built)


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.relu = nn.ReLU()
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Residual(nn.Module):
    """It has a convolution called like the function before it, too."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.steps = nn.Sequential(Block(2, 2), Block(2, 3))
        self.relu = nn.Conv2d(3, 2, 1)
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        x = self.relu(torch.relu(self.steps(self.conv1(x))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.pool, self.conv2 = nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3)
        self.fc1 = nn.Linear(12, 2)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv2(self.pool(torch.relu(self.conv1(x))))))
        return self.fc1(torch.flatten(x, 1))


class Taken(nn.Module):
    """Its layers have names that modules of Flax and gluon's blocks have for something else."""

    def __init__(self):
        super().__init__()
        self.params, self.init = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)
        self.block = nn.Sequential(OrderedDict(params=nn.Conv2d(2, 2, 1), cast=nn.BatchNorm2d(2)))

    def forward(self, x):
        x = self.params(x)
        return self.block(x) + self.init(x)


class Shared(nn.Module):
    """A tower for two levels."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 2, stride=2)
        self.tower = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())

    def forward(self, x):
        x = self.stem(x)
        return self.tower(x) + nn.functional.interpolate(self.tower(self.down(x)), scale_factor=2.0)


def nested():
    named = OrderedDict(first=nn.Conv2d(2, 2, 3), second_one=nn.Sequential(nn.ReLU(), nn.Conv2d(2, 1, 1)))
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.Identity(), nn.Sequential(named))


MODELS = {
    "residual": Residual,
    "lenet": LeNet,
    "numbers": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 1)),
    "nested": nested,
    "taken": Taken,
    "shared": Shared,
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_original_takes_the_state_dict_that_comes_back(framework, kind):
    original = MODELS[kind]().eval()
    back = port(port(original, framework, (12, 12)), "torch", (12, 12)).state_dict()
    expected = original.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in back.items())
    original.load_state_dict(back)


class ConvNeXtBlock(nn.Module):
    """A parameter of its own, and dense layers of each pixel (arXiv:2201.03545)."""

    def __init__(self):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.LayerNorm(3)
        self.wide, self.narrow = nn.Linear(3, 5), nn.Linear(5, 3)
        self.gamma = nn.Parameter(torch.rand(3, 1, 1))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(nn.functional.gelu(self.wide(y))).permute(0, 3, 1, 2)
        return x + self.gamma * y


def test_what_comes_back_in_other_layers_comes_into_the_original_by_port_weights(framework):
    original, other = ConvNeXtBlock().eval(), ConvNeXtBlock().eval()
    back = port(port(original, framework), "torch")
    other.load_state_dict(port_weights(None, back, other))
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in other.state_dict().items())


NAMES = {
    "chain": ["block1_conv1", "block1_conv1_relu", "bn"],
    "numbers": ["0", "1", "2"],
    "nested": ["block.0.conv", "block.0.act", "head"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_names_of_any_framework_survive_torch(framework, names, tmp_path):
    layers = [conv(3, 2), Activation("relu"), norm(3)]
    values = [INPUT, *names]
    original = net(framework, [(values[i + 1], layer, [values[i]]) for i, layer in enumerate(layers)])
    there = port(original, "torch")
    assert [name for name, _ in there.named_modules() if name in names] == names
    models, back = models_of(framework), port(there, framework)
    models.save(back, path := tmp_path / f"model{models.FILES[0]}")
    filled = models.with_weights(original, models.load(path, original))
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 6)).astype("float32")
    np.testing.assert_array_equal(run(framework, filled, x), run(framework, back, x))


def test_an_activation_is_not_called_like_what_layers_are_in(framework):
    """Keras's separable convolution is two, `both/depthwise` and `both/pointwise`, and the activation is in `both`."""
    import keras

    layer = keras.layers.SeparableConv2D(2, 3, activation="relu", name="both")
    model = keras.Sequential([keras.Input((6, 6, 2)), layer, keras.layers.Conv2D(1, 1, name="last")])
    back = port(port(model, framework), "torch")
    weights = ["both.depthwise.weight", "both.pointwise.weight", "both.pointwise.bias", "last.weight", "last.bias"]
    assert [*back.state_dict()] == weights
    x = np.random.default_rng(0).normal(size=(1, 2, 6, 6)).astype("float32")
    np.testing.assert_allclose(run("torch", back, x), run("tensorflow", model, x), atol=1e-5)
