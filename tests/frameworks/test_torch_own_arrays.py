"""Parameters and buffers that a PyTorch model's code takes: a scale of channels, a class token, positions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convlab import load, port, port_weights, save
from convlab.errors import ModelError, ModelFileError
from convlab.models.adapters import models_of


class Scaled(nn.Module):
    """ConvNeXt's layer scale with a shift behind it, and one that isn't trained."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.gamma, self.beta = nn.Parameter(torch.rand(2, 1, 1)), nn.Parameter(torch.rand(2, 1, 1))
        self.strength = nn.Parameter(torch.rand(1))
        self.register_buffer("shift", torch.rand(1, 2, 1, 1))

    def forward(self, x):
        return x + (self.gamma * self.conv(x + self.shift) + self.beta) * self.strength


class Transformer(nn.Module):
    """A class token, positions and a head."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(2, 4, 4, 4), nn.Linear(4, 3)
        self.token, self.positions = nn.Parameter(torch.rand(1, 1, 4)), nn.Parameter(torch.rand(1, 5, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.attention(x, x, x, need_weights=False)[0][:, 0])


class Computed(nn.Module):
    """A scale that the code computes."""

    def __init__(self):
        super().__init__()
        self.conv, self.log = nn.Conv2d(2, 2, 1), nn.Parameter(torch.rand(2, 1, 1))

    def forward(self, x):
        return self.conv(x) * self.log.exp()


@pytest.mark.parametrize("kind", [Scaled, Transformer])
def test_the_models_own_arrays_come_with_the_others(kind, tmp_path):
    source, target = kind().eval(), kind().eval()
    save(source, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", into=target)
    x = torch.rand(2, 2, 8, 8)
    carried = port_weights(None, source, target, inputs=x)
    assert not torch.equal(target(x), source(x))
    for name, array in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], array)
        assert torch.equal(carried[name], array)


class NamedAsAnOperation(nn.Module):
    """A layer called like the sum before it, as in EDSR's code."""

    def __init__(self):
        super().__init__()
        self.head, self.add = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        y = self.head(x)
        y += x
        return self.add(y)


def test_a_layer_called_like_an_operation(tmp_path):
    source, target = NamedAsAnOperation().eval(), NamedAsAnOperation().eval()
    save(source, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", into=target)
    for state in (loaded.state_dict(), port_weights(source.state_dict(), source, target)):
        assert all(torch.equal(state[name], array) for name, array in source.state_dict().items())


@pytest.mark.parametrize(
    ("last", "sentence"), [([], "it has no relu activation"), ([nn.SiLU()], "it has silu activation")]
)
def test_other_functions_between_the_layers_are_refused(last, sentence, tmp_path):
    source = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()).eval()
    save(source, tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match=f"computes something else than the file's layers;.* {sentence}"):
        load(tmp_path / "model.safetensors", into=nn.Sequential(source[0], source[1], *last).eval())


def test_weights_that_a_model_does_not_keep_are_refused(tmp_path, monkeypatch):
    source, target = (nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()).eval() for _ in range(2))
    save(source, tmp_path / "model.safetensors")
    monkeypatch.setattr(models_of("torch"), "fill", lambda model, layers: model.native)
    with pytest.raises(ModelFileError, match="got weights that '0' doesn't keep as they are"):
        load(tmp_path / "model.safetensors", into=target)


@pytest.mark.parametrize("wrapper", [nn.DataParallel, torch.compile])
def test_what_stands_for_a_module_is_read_as_that(wrapper):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()).eval()
    ported = port(wrapper(model), to="torch")
    assert torch.equal(ported.model[0].weight, model[0].weight)
    with pytest.raises(ModelError, match="got TorchScript of Sequential, expected the module"):
        port(torch.jit.script(model), to="torch")


def test_an_array_that_is_computed_is_refused(tmp_path):
    source, target = Computed().eval(), Computed().eval()
    save(source, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"^log: got other numbers than those that the model's code computes"):
        load(tmp_path / "model.safetensors", into=target)
    target.log.data.copy_(source.log)
    assert torch.equal(load(tmp_path / "model.safetensors", into=target).conv.weight, source.conv.weight)
