"""Attention in windows and in grids: MaxViT's as torchvision writes it, Swin's as timm does."""

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
from convlab.models.layers import windows

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
        self.partition_type, self.size, self.grid_size = kind, size, (4, 6)
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


def named(monkeypatch, name, kinds, make) -> nn.Module:
    """A model of classes of the names and with the attributes of a library's, which isn't installed here."""
    for kind in kinds:
        monkeypatch.setattr(kind, "__module__", name)
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    model, generator = make().double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for array in model.parameters():
            array.copy_(torch.rand(array.shape, generator=generator, dtype=torch.float64) - 0.5)
    return model.eval()


@pytest.fixture
def model(monkeypatch) -> nn.Module:
    kinds = RelativePositionalMultiHeadAttention, PartitionAttentionLayer
    return named(monkeypatch, "torchvision.models.maxvit", kinds, MaxViT)


def test_windows_and_grids(model) -> None:
    found = [part.layer for part in read(model).parts if isinstance(part.layer, windows.WindowAttention)]
    assert [(layer.grid, layer.window, layer.heads) for layer in found] == [(False, (2, 2), 4), (True, (2, 2), 4)]
    ported = port(model, to="torch", inputs=X)
    assert ported.evidence.same
    assert not ported.untouched
    with torch.no_grad():
        assert float((ported.model(torch.from_numpy(X)) - model(torch.from_numpy(X))).abs().max()) < 1e-12
    assert port(model, to="torch", input_size=X.shape[2:]).evidence.same
    with pytest.raises(ModelError, match="its keys are multiplied by another number"):
        port_weights(None, ported.model, model, inputs=X)


class WindowAttention(nn.Module):
    """Attention of the tokens of one window, (N, tokens, C)."""

    def __init__(self, dim: int, heads: int, size: int) -> None:
        super().__init__()
        self.num_heads, self.window_size = heads, (size, size)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.attn_drop, self.proj_drop, self.softmax = nn.Dropout(0.0), nn.Dropout(0.0), nn.Softmax(dim=-1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * size - 1) ** 2, heads))
        pixels = [(row, column) for row in range(size) for column in range(size)]
        places = [
            [(row - down + size - 1) * (2 * size - 1) + column - across + size - 1 for down, across in pixels]
            for row, column in pixels
        ]
        self.register_buffer("relative_position_index", torch.tensor(places), persistent=False)

    def forward(self, x, apart):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT / q.shape[-1] ** 0.5 + self.relative_position_bias_table[
            self.relative_position_index
        ].movedim(-1, 0)
        scores = scores.masked_fill(apart, -torch.inf)
        return self.proj((self.softmax(scores) @ v).transpose(1, 2).flatten(2))


class SwinTransformerBlock(nn.Module):
    """Each window cut out of the shifted image by itself; pixels that the shift brings together don't meet."""

    def __init__(self, dim: int, size: tuple[int, int], window: int, shift: int) -> None:
        super().__init__()
        self.input_resolution, self.shift_size, self.dynamic_mask = size, (shift, shift), False
        self.norm1, self.norm2, self.attn = nn.LayerNorm(dim), nn.LayerNorm(dim), WindowAttention(dim, 2, window)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        self.drop_path1, self.drop_path2 = nn.Identity(), nn.Identity()
        self.register_buffer("attn_mask", torch.zeros(1) if shift else None, persistent=False)

    def forward(self, x):
        n, shift = self.attn.window_size[0], self.shift_size[0]
        y = self.norm1(x).roll((-shift, -shift), (1, 2))
        result = torch.zeros_like(x)
        rows, columns = self.input_resolution
        for i in range(0, rows, n):
            for j in range(0, columns, n):
                wrapped = [(a >= rows - shift, b >= columns - shift) for a in range(i, i + n) for b in range(j, j + n)]
                apart = torch.tensor([[one != other for other in wrapped] for one in wrapped])
                tokens = self.attn(y[:, i : i + n, j : j + n].flatten(1, 2), apart)
                result[:, i : i + n, j : j + n] = tokens.unflatten(1, (n, n))
        x = x + self.drop_path1(result.roll((shift, shift), (1, 2)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        n, rows, columns, channels = x.shape
        squares = x.reshape(n, rows // 2, 2, columns // 2, 2, channels).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(squares))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(8, 5)
        self.blocks = nn.Sequential(*(SwinTransformerBlock(4, (8, 12), 4, shift) for shift in (0, 2)))
        self.merging = PatchMerging(4)

    def forward(self, x):
        torch._assert(x.shape[2] == 8, "other rows")
        torch._assert(x.shape[3] == 12, "other columns")
        return self.head(self.merging(self.blocks(self.stem(x).permute(0, 2, 3, 1))).mean((1, 2)))


@pytest.fixture
def swin(monkeypatch) -> nn.Module:
    return named(
        monkeypatch, "timm.models.swin_transformer", (WindowAttention, SwinTransformerBlock, PatchMerging), Swin
    )


def test_shifted_windows_of_timm(swin) -> None:
    source = read(swin)
    assert source.image == (3, 8, 12)  # which its code asserts
    found = [part.layer for part in source.parts if isinstance(part.layer, windows.WindowAttention)]
    assert [(layer.window, layer.shift, layer.heads) for layer in found] == [((4, 4), (0, 0), 2), ((4, 4), (2, 2), 2)]
    ported = port(swin, to="torch")
    assert ported.evidence.same
    assert not ported.untouched
    with torch.no_grad():
        assert float((ported.model(torch.from_numpy(X)) - swin(torch.from_numpy(X))).abs().max()) < 1e-12


def test_windows_that_are_padded_behind_their_shift_are_refused(swin) -> None:
    swin.blocks[1].input_resolution = (8, 11)
    assert "blocks.1.attn" in str(read(swin).loose)
