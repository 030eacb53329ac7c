"""Convolutions along the channels of what is pooled, as efficient channel attention has them, arXiv:1910.03151."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import run
from sources import check
from torch import nn

from convlab import load, port, save
from convlab.models.adapters import read

X = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype("float32")


class Original(nn.Module):
    """As its authors write it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1)
        self.conv, self.sigmoid = nn.Conv1d(1, 1, 3, padding=1, bias=False), nn.Sigmoid()

    def forward(self, x):
        x = self.first(x)
        y = self.pool(x)
        y = self.conv(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * self.sigmoid(y).expand_as(x)


class Twice(Original):
    """As timm writes it, with two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv1d(1, 1, 5, padding=4, dilation=2)

    def forward(self, x):
        x = self.first(x)
        y = x.mean((2, 3)).view(x.shape[0], 1, -1)
        y = self.second(torch.relu(self.conv(y)))
        return x * self.sigmoid(y).view(x.shape[0], -1, 1, 1).expand_as(x)


@pytest.mark.parametrize("kind", [Original, Twice])
def test_it_is_ported_saved_and_written(framework, kind, tmp_path) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    ported = port(model, to=framework)
    assert ported.evidence.same
    assert not ported.untouched
    expected = run("torch", model, X)
    assert np.abs(run(framework, ported.model, X) - expected).max() < 1e-5
    save(ported, path := tmp_path / "model.safetensors")
    assert np.abs(run(framework, load(path, backend=framework), X) - expected).max() < 1e-5
    if kind is Original:
        check(framework, ported, tmp_path, X)


def test_weights_come_back_into_the_original(tmp_path) -> None:
    torch.manual_seed(0)
    model, other = Original().eval(), Original().eval()
    save(model, path := tmp_path / "model.safetensors")
    filled = load(path, into=other)
    assert torch.equal(filled.conv.weight, model.conv.weight)
    assert torch.equal(filled(torch.tensor(X)), model(torch.tensor(X)))


def test_sequences_stay_sequences() -> None:
    model = nn.Sequential(nn.Conv1d(1, 1, 3), nn.Conv1d(1, 2, 1))
    assert [part.layer.kind for part in read(model).parts] == ["conv1d", "conv1d"]


class Shifted(Original):
    """A convolution that gives another number of numbers."""

    def forward(self, x):
        x = self.first(x)
        return x * self.conv(x.mean((2, 3)).view(x.shape[0], 1, -1)[:, :, 1:]).sum()


class Columns(Original):
    """A convolution along the columns, of which there are several."""

    def forward(self, x):
        x = self.first(x)[:, :1]
        return x * self.conv(x.mean(2))


@pytest.mark.parametrize("kind", [Shifted, Columns])
def test_others_are_refused(kind) -> None:
    model = read(kind())
    assert not model.whole or any(part.layer is None for part in model.parts)
