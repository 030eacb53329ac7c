"""Layers with a forward of their own, and functions of layers with a module's own arrays, as timm writes them."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convlab import port
from convlab.errors import PartialPortWarning
from convlab.models.adapters import read
from convlab.models.layers.layer import Convolution

X = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 9, 8)))


class NormAct(nn.BatchNorm2d):
    """Batch norm and an activation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x):
        torch._assert(x.ndim == 4, f"got {x.ndim} axes")
        running = self.running_mean, self.running_var
        x = F.batch_norm(x, *running, self.weight, self.bias, self.training, self.momentum, self.eps)
        return self.act(self.drop(x))


class OneGroup(nn.GroupNorm):
    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x):
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class OwnLinear(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Network(nn.Module):
    """Such layers, and arguments with defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.norm = nn.Conv2d(3, 6, 3, bias=False), NormAct(6), OneGroup(6)
        self.gamma, self.nothing, self.fc = nn.Parameter(torch.ones(6)), nn.Sequential(), OwnLinear(6, 4)

    def forward(self, x, mask=None, scaled: bool = True):
        x = self.nothing(self.bn(self.conv(x)))
        if mask is not None:
            x = x * mask
        x = x + self.norm(x) * self.gamma.view(1, -1, 1, 1) if scaled else x
        return self.fc(x.mean((2, 3)))


class Functions(nn.Module):
    """Nothing but functions and parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.ones(6, 3, 3, 3)), nn.Parameter(torch.ones(6))
        self.up, self.slope = nn.Parameter(torch.ones(6, 2, 2, 2)), nn.Parameter(torch.ones(2))

    def forward(self, x):
        x = F.conv2d(x, self.kernel, self.shift, stride=2, padding=1)
        return F.prelu(F.conv_transpose2d(x, self.up, stride=2), self.slope)


class Slices(nn.Module):
    """Channels in parts of different sizes: slices and splits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 7, 1), nn.Conv2d(11, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        first, second = torch.split(x, [2, 5], dim=1)
        thirds = torch.split(x[:, 1:], 2, 1)
        return self.last(torch.cat([first, second[:, :3], x[:, 3:, :, :], thirds[-1]], 1))


class Standardised(nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1: arXiv:1903.10520."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def forward(self, x):
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        weight = self.gain * 0.5 * (self.weight - mean) / torch.sqrt(variance + 1e-6)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Equalised(nn.Linear):
    """A dense layer whose kernel is scaled as it is used: arXiv:1710.10196, section 4.1."""

    def forward(self, x):
        return F.linear(x, self.weight * (2 / self.in_features) ** 0.5, self.bias + 1)


class Computed(nn.Module):
    """Layers that compute their kernels, and numbers for channels by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = Standardised(3, 6), Equalised(6, 2)
        self.logits = nn.Parameter(torch.ones(6))

    def forward(self, x):
        x = self.first(x) * torch.sigmoid(self.logits).view(1, -1, 1, 1)
        return self.last(x.mean((2, 3)))


def shaken(model: nn.Module) -> nn.Module:
    """The model with random numbers, in inference."""
    torch.manual_seed(0)
    for array in model.state_dict().values():
        if array.is_floating_point():
            array.uniform_(0.5, 1.5)
    return model.eval()


def ported(model: nn.Module, **options: object) -> nn.Module:
    """A port that computes what the model computes in float64."""
    result = port(model, to="torch", **options)
    assert result.evidence.same
    assert not result.untouched
    with torch.no_grad():
        expected, y = model.double()(X), result.model.double()(X)
    assert y.shape == expected.shape
    assert float((y - expected).abs().max()) < 1e-11 * float(expected.abs().max())
    return result.model


@pytest.mark.parametrize("kind", [Network, Functions, Slices])
def test_it_is_ported(kind) -> None:
    ported(shaken(kind()))


def test_layers_with_others_inside_keep_their_names() -> None:
    model = shaken(nn.Sequential(nn.Conv2d(3, 6, 3), NormAct(6), nn.Conv2d(6, 2, 1)))
    model.load_state_dict(ported(model).state_dict())


def test_arrays_that_are_computed() -> None:
    """They are ported as they are, and how they are computed is named, since training would compute them anew."""
    with pytest.warns(PartialPortWarning) as warned:
        result = port(shaken(Computed()).double(), to="torch")
    assert result.evidence.same
    assert {*result.untouched} == {"logits", "first.gain", "first.weight", "last.weight", "last.bias"}
    words = " ".join(str(warned[0].message).split())
    assert "all that inference needs was ported" in words
    assert "first.gain: each time the code computes anew from first.gain and first.weight" in words
    model = shaken(Computed()).double()
    with torch.no_grad():
        expected = model(X)
        assert float((result.model(X) - expected).abs().max()) < 1e-11 * float(expected.abs().max())


@pytest.fixture
def same_padding(monkeypatch) -> type[nn.Module]:
    """A class of the name and with the padding of timm's, which isn't installed here."""

    class Conv2dSame(nn.Conv2d):
        def forward(self, x):
            pads = []
            for n, k, s in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
                missing = max((-(-n // s) - 1) * s + k - n, 0)
                pads += [missing // 2, missing - missing // 2]
            return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride)

    name = "timm.layers.conv2d_same"
    Conv2dSame.__module__, Conv2dSame.__qualname__ = name, "Conv2dSame"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    return Conv2dSame


def test_tensorflows_padding_of_timm(same_padding) -> None:
    model = shaken(nn.Sequential(same_padding(3, 4, (3, 2), stride=2), nn.ReLU(), same_padding(4, 2, 3)))
    layers = [part.layer for part in read(model).parts]
    assert [layer.spec.padding for layer in layers if isinstance(layer, Convolution)] == ["same", ((1, 1), (1, 1))]
    ported(model, input_size=(9, 8))
