"""Attention in windows and in grids that code around it cuts images into, read as that of images.

So it is in torchvision's MaxViT, arXiv:2204.01697, and in timm's Swin, arXiv:2103.14030.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convlab.geometry.geometry import Pair
from convlab.models.layers import windows as window_layers
from convlab.models.layers.layer import Layer

from ..ops import ops
from .attention import OfTorchvision, WindowAttention, dense_of, shifted_windows
from .functions import class_path

_LAYER = "torchvision.models.maxvit.PartitionAttentionLayer"
_OF_PARTITIONS = "torchvision.models.maxvit.RelativePositionalMultiHeadAttention"
_SWIN = "timm.models.swin_transformer"
_OF_WINDOWS = f"{_SWIN}.WindowAttention"
ATTENTION = _OF_PARTITIONS, _OF_WINDOWS


class PartitionAttention(OfTorchvision):
    """Torchvision's attention of the pixels of partitions, (N, partitions, pixels, C), for images (N, C, H, W).

    Args:
        inner: the module.
        grid: whether the partitions are grids, or windows.
        size: the rows and columns of the images that the code around it takes.
    """

    why = "its keys are multiplied by another number than those of attention"

    def __init__(self, inner: nn.Module, grid: bool, size: Pair) -> None:
        super().__init__(inner)
        self.grid, self.size = grid, size

    @property
    def window(self) -> Pair:
        """The rows and columns of a partition."""
        inner: Any = self.inner
        return inner.size, inner.size

    def forward(self, x: Tensor) -> Tensor:
        """The image, each pixel computed from those of its partition.

        Images of other sizes than multiples of it are padded, as those of `convlab.models.layers.windows` are.
        """
        rows, columns = int(x.shape[2]), int(x.shape[3])
        windows = window_layers.windows_of((rows, columns), self.window, (0, 0), self.grid)
        padded = F.pad(x, (0, windows.padded[1] - columns, 0, windows.padded[0] - rows))
        y: Tensor = self.inner(padded.flatten(2).transpose(1, 2)[:, torch.from_numpy(windows.places)])
        return y.flatten(1, 2)[:, torch.from_numpy(windows.back)].transpose(1, 2).reshape(x.shape)


def _maxvit(layer: Any, x: Tensor) -> Tensor:
    pixels = x.permute(0, 2, 3, 1)
    pixels = pixels + layer.stochastic_dropout(layer.attn_layer(pixels))
    pixels = pixels + layer.stochastic_dropout(layer.mlp_layer(pixels))
    return pixels.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def _swin(block: Any, x: Tensor) -> Tensor:
    x = x + block.drop_path1(block.attn(block.norm1(x)))
    return x + block.drop_path2(block.mlp(block.norm2(x)))  # type: ignore[no-any-return]


def _merging(layer: Any, x: Tensor) -> Tensor:
    squares = torch.cat([x[:, i::2, j::2] for j in range(2) for i in range(2)], dim=-1)
    return layer.reduction(layer.norm(squares))  # type: ignore[no-any-return]


# What layers of partitions compute, written without them: only the attention inside heeds them.
FORWARDS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    _LAYER: _maxvit,
    f"{_SWIN}.SwinTransformerBlock": _swin,
    f"{_SWIN}.PatchMerging": _merging,
}


def of_partitions(model: nn.Module, path: str) -> PartitionAttention | WindowAttention | None:
    """The attention at a path for images NCHW, in the partitions of the layer around it; None for another module."""
    module: Any = model.get_submodule(path)
    if class_path(module) == _OF_WINDOWS:
        return _of_block(module, model.get_submodule(path.rpartition(".")[0]))
    layer: Any = model.get_submodule(path.rpartition("attn_layer")[0].rstrip("."))
    if class_path(module) != _OF_PARTITIONS or class_path(layer) != _LAYER:
        return None
    rows, columns = layer.grid_size
    return PartitionAttention(module, layer.partition_type == "grid", (rows, columns)).train(module.training)


def _of_block(attention: Any, block: Any) -> WindowAttention | None:
    """The attention of the windows of a block; None where it pads images, which it does behind the shift."""
    inside = class_path(block) == f"{_SWIN}.SwinTransformerBlock" and not block.dynamic_mask
    if not inside or any(n % size for n, size in zip(block.input_resolution, attention.window_size, strict=True)):
        return None
    if attention.qkv.out_features != 3 * attention.qkv.in_features or attention.proj_drop.p:
        return None
    other = shifted_windows(attention, tuple(block.shift_size), attention.attn_drop.p)
    other.register_buffer("mask", block.attn_mask, persistent=False)  # so that it counts as known
    return other


def _read(m: PartitionAttention) -> Layer:
    given: Any = m.inner
    dense = dense_of(given.to_qkv.weight, given.to_qkv.bias, given.merge)
    # Attention divides by the root of a head's channels, this one by that of all.
    factor = given.scale_factor * math.sqrt(given.head_dim)
    for name in ("kernel", "bias"):
        queries, keys, values = np.split(dense[name], 3)
        dense[name] = np.concatenate([queries, keys * dense[name].dtype.type(factor), values])
    table = ops.to_numpy(given.relative_position_bias_table)
    return window_layers.WindowAttention(
        **dense, heads=given.n_heads, table=table, window=m.window, size=m.size, grid=m.grid
    )


READERS: dict[type[nn.Module], Callable[[Any], Layer]] = {PartitionAttention: _read}
