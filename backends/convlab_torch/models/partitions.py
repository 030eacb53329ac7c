"""Torchvision's MaxViT, arXiv:2204.01697: its attention in windows and in grids, read as that of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convlab.geometry.geometry import Pair
from convlab.models.layers.layer import Layer
from convlab.models.layers.windows import WindowAttention, windows_of

from ..ops import ops
from .attention import OfTorchvision, dense_of
from .functions import class_path

_LAYER = "torchvision.models.maxvit.PartitionAttentionLayer"
ATTENTION = "torchvision.models.maxvit.RelativePositionalMultiHeadAttention"


class PartitionAttention(OfTorchvision):
    """Torchvision's attention of the pixels of partitions, (N, partitions, pixels, C), for images (N, C, H, W).

    Args:
        inner: the module.
        grid: whether the partitions are grids, or windows.
    """

    why = "its keys are multiplied by another number than those of attention"

    def __init__(self, inner: nn.Module, grid: bool) -> None:
        super().__init__(inner)
        self.grid = grid

    @property
    def window(self) -> Pair:
        """The rows and columns of a partition."""
        inner: Any = self.inner
        return inner.size, inner.size

    def forward(self, x: Tensor) -> Tensor:
        """The image, each pixel computed from those of its partition; their sizes must be multiples of it."""
        windows = windows_of((int(x.shape[2]), int(x.shape[3])), self.window, (0, 0), self.grid)
        y: Tensor = self.inner(x.flatten(2).transpose(1, 2)[:, torch.from_numpy(windows.places)])
        return y.flatten(1, 2)[:, torch.from_numpy(windows.back)].transpose(1, 2).reshape(x.shape)


def forward_of(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What a layer of partitions computes, written without them: only the attention inside heeds them.

    It is None for another module.
    """
    layer: Any = module
    if class_path(layer) != _LAYER:
        return None

    def forward(x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)
        pixels = pixels + layer.stochastic_dropout(layer.attn_layer(pixels))
        pixels = pixels + layer.stochastic_dropout(layer.mlp_layer(pixels))
        images: Tensor = pixels.permute(0, 3, 1, 2)
        return images

    return forward


def of_partitions(model: nn.Module, path: str) -> PartitionAttention | None:
    """The attention at a path for images NCHW, in the partitions of the layer around it; None for another module."""
    module, layer = model.get_submodule(path), model.get_submodule(path.rpartition("attn_layer")[0].rstrip("."))
    if class_path(module) != ATTENTION or class_path(layer) != _LAYER:
        return None
    return PartitionAttention(module, layer.partition_type == "grid").train(module.training)


def _read(m: PartitionAttention) -> Layer:
    given: Any = m.inner
    dense = dense_of(given.to_qkv.weight, given.to_qkv.bias, given.merge)
    # Attention divides by the root of a head's channels, this one by that of all.
    factor = given.scale_factor * math.sqrt(given.head_dim)
    for name in ("kernel", "bias"):
        queries, keys, values = np.split(dense[name], 3)
        dense[name] = np.concatenate([queries, keys * dense[name].dtype.type(factor), values])
    table = ops.to_numpy(given.relative_position_bias_table)
    return WindowAttention(**dense, heads=given.n_heads, table=table, window=m.window, grid=m.grid)


READERS: dict[type[nn.Module], Callable[[Any], Layer]] = {PartitionAttention: _read}
