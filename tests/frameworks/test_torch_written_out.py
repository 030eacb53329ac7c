"""Attention in plain operations, in anyone's words: one dense layer or three, in whichever order its rows stand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convlab import port, port_weights
from convlab.errors import PartialPortWarning
from convlab.models.adapters import read
from convlab.models.layers.attention import Attention

IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 8, 8)))


class OneLayer(nn.Module):
    """Queries, keys and values by one dense layer, whose rows stand in an order."""

    order: tuple[int, ...] = (3, 2, 4)

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim), nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.1))

    def three(self, x):
        n, tokens, _ = x.shape
        return self.to_qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def weights(self, scores):
        return (scores * self.scale).softmax(dim=-1)

    def forward(self, x):
        q, k, v = self.three(x)
        y = self.weights(torch.matmul(q, k.transpose(-2, -1))) @ v
        return self.to_out(y.transpose(1, 2).reshape(x.shape))


class HeadsFirst(OneLayer):
    def three(self, x):
        return self.to_qkv(x).reshape(*x.shape[:2], self.heads, 3, -1).permute(3, 0, 2, 1, 4)


class ThreeLast(OneLayer):
    def three(self, x):
        return self.to_qkv(x).reshape(*x.shape[:2], self.heads, -1, 3).permute(4, 0, 2, 1, 3)


class Chunks(OneLayer):
    def three(self, x):
        parts = self.to_qkv(x).chunk(3, dim=-1)
        return (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)


class ThreeLayers(nn.Module):
    """A dense layer for each, of more channels than the tokens have; the keys have no bias."""

    def __init__(self, dim: int, n_head: int, inner: int = 12) -> None:
        super().__init__()
        self.n_head = n_head
        self.value, self.query = nn.Linear(dim, inner), nn.Linear(dim, inner)
        self.key, self.proj = nn.Linear(dim, inner, bias=False), nn.Linear(inner, dim)

    def forward(self, x):
        layers = self.query, self.key, self.value
        q, k, v = (layer(x).view(*x.shape[:2], self.n_head, -1).transpose(1, 2) for layer in layers)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Model(nn.Module):
    """Patches, attention between dense layers of each token, and the mean."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.patches, self.norm, self.attention = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8), kind(8, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head((x + self.attention(self.norm(x))).mean(1))


def shaken(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """A model with random numbers, in inference."""
    torch.manual_seed(seed)
    model = Model(kind)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


@pytest.mark.parametrize("kind", [OneLayer, HeadsFirst, ThreeLast, Chunks, ThreeLayers])
def test_it_is_known_by_what_it_computes(kind) -> None:
    model = shaken(kind)
    (layer,) = (part.layer for part in read(model).parts if isinstance(part.layer, Attention))
    assert (layer.heads, layer.key_size) == (2, 6 if kind is ThreeLayers else 4)
    ported = port(model, to="torch")
    assert ported.evidence.same
    assert not ported.untouched
    other = shaken(kind, seed=1)
    other.load_state_dict(port_weights(None, ported.model, other))
    with torch.no_grad():
        expected = model(IMAGES)
        assert float((ported.model(IMAGES) - expected).abs().max()) < 1e-12
        assert float((other(IMAGES) - expected).abs().max()) < 1e-12


class OtherScale(OneLayer):
    def weights(self, scores):
        return (scores * 8**-0.5).softmax(dim=-1)


class OtherAxis(OneLayer):
    def weights(self, scores):
        return (scores * self.scale).softmax(dim=-2)


class Near(OneLayer):
    """Attention to all tokens of few, and to those nearby of many."""

    def weights(self, scores):
        place = torch.arange(scores.shape[-1])
        return (scores * self.scale - 100.0 * ((place[:, None] - place).abs() > 6)).softmax(dim=-1)


@pytest.mark.parametrize("kind", [OtherScale, OtherAxis, Near])
def test_what_computes_something_else_is_refused(kind) -> None:
    with pytest.warns(PartialPortWarning, match="attention"):
        ported = port(shaken(kind), to="torch")
    assert not any(isinstance(part.layer, Attention) for part in read(shaken(kind)).parts)
    assert any("attention" in path for path in ported.untouched)
