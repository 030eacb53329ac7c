"""MaxViT's attention in windows and in grids, as torchvision writes it."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from convlab import port, port_weights
from convlab.errors import ModelError
from convlab.models.adapters import read
from convlab.models.layers.windows import WindowAttention

X = np.random.default_rng(0).normal(size=(2, 3, 8, 12))


class RelativePositionalMultiHeadAttention(nn.Module):
    """Attention of (N, partitions, pixels, C), one pixel of a head at a time."""

    def __init__(self, feat_dim: int, head_dim: int, size: int) -> None:
        super().__init__()
        self.n_heads, self.head_dim, self.size = feat_dim // head_dim, head_dim, size
        self.scale_factor = feat_dim**-0.5
        self.to_qkv, self.merge = nn.Linear(feat_dim, 3 * feat_dim), nn.Linear(feat_dim, feat_dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * size - 1) ** 2, self.n_heads))

    def forward(self, x):
        q, k, v = self.to_qkv(x).split(x.shape[-1], -1)
        result = torch.zeros_like(x)
        for head in range(self.n_heads):
            own = slice(head * self.head_dim, (head + 1) * self.head_dim)
            for pixel in range(self.size**2):
                row, column = divmod(pixel, self.size)
                scores = (k[..., own] * q[..., pixel : pixel + 1, own]).sum(-1) * self.scale_factor
                for other in range(self.size**2):
                    down, across = row - other // self.size, column - other % self.size
                    place = (down + self.size - 1) * (2 * self.size - 1) + across + self.size - 1
                    scores[..., other] += self.relative_position_bias_table[place, head]
                result[..., pixel, own] = (scores.softmax(-1)[..., None] * v[..., own]).sum(-2)
        return self.merge(result)


class PartitionAttentionLayer(nn.Module):
    """Windows, or grids, each cut out of the image by itself."""

    def __init__(self, channels: int, size: int, kind: str) -> None:
        super().__init__()
        self.partition_type, self.size = kind, size
        attention = RelativePositionalMultiHeadAttention(channels, 2, size)
        self.attn_layer = nn.Sequential(nn.LayerNorm(channels), attention, nn.Dropout(0.0))
        self.mlp_layer = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU())
        self.stochastic_dropout = nn.Identity()

    def forward(self, x):
        result, n = torch.zeros_like(x), self.size
        rows, columns = x.shape[2] // n, x.shape[3] // n
        for i in range(rows):
            for j in range(columns):
                grid = self.partition_type == "grid"
                down = slice(i, None, rows) if grid else slice(i * n, (i + 1) * n)
                across = slice(j, None, columns) if grid else slice(j * n, (j + 1) * n)
                pixels = x[:, :, down, across].flatten(2).transpose(1, 2)[:, None]
                pixels = pixels + self.stochastic_dropout(self.attn_layer(pixels))
                pixels = pixels + self.stochastic_dropout(self.mlp_layer(pixels))
                result[:, :, down, across] = pixels[:, 0].transpose(1, 2).reshape(len(x), -1, n, n)
        return result


class MaxViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, stride=2)
        self.window, self.grid = PartitionAttentionLayer(8, 2, "window"), PartitionAttentionLayer(8, 2, "grid")

    def forward(self, x):
        return self.grid(self.window(self.stem(x)))


@pytest.fixture
def model(monkeypatch) -> nn.Module:
    """A model of classes of the names and with the attributes of torchvision's, which isn't installed here."""
    name = "torchvision.models.maxvit"
    for kind in (RelativePositionalMultiHeadAttention, PartitionAttentionLayer):
        monkeypatch.setattr(kind, "__module__", name)
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    model, generator = MaxViT().double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for array in model.parameters():
            array.copy_(torch.rand(array.shape, generator=generator, dtype=torch.float64) - 0.5)
    return model.eval()


def test_windows_and_grids(model) -> None:
    found = [part.layer for part in read(model).parts if isinstance(part.layer, WindowAttention)]
    assert [(layer.grid, layer.window, layer.heads) for layer in found] == [(False, (2, 2), 4), (True, (2, 2), 4)]
    ported = port(model, to="torch", inputs=X)
    assert ported.evidence.same
    assert not ported.untouched
    with torch.no_grad():
        assert float((ported.model(torch.from_numpy(X)) - model(torch.from_numpy(X))).abs().max()) < 1e-12
    with pytest.raises(ModelError, match="its keys are multiplied by another number"):
        port_weights(None, ported.model, model, inputs=X)
