"""PyTorch's attention, of the pixels of images, and what makes pixels the tokens of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from convlab.geometry.geometry import Pair
from convlab.models.layers import attention as layers
from convlab.models.layers.layer import Layer

from ..ops import ops


class PixelAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` of the pixels of images (N, C, H, W) to one another."""

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(embed_dim, num_heads, dropout, bias, batch_first=True, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """The image, each pixel computed from all."""
        pixels = x.flatten(2).transpose(1, 2)
        y, _ = super().forward(pixels, pixels, pixels, need_weights=False)
        return y.transpose(1, 2).reshape(x.shape)


class ClassToken(nn.Module):
    """The pixels of images (N, C, H, W), row by row, as one column, with a learned pixel before them.

    Args:
        channels: how many there are.
    """

    def __init__(self, channels: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.token = nn.Parameter(torch.zeros(channels, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """The images (N, C, 1 + H * W, 1)."""
        first = self.token.view(-1, 1).expand(len(x), -1, -1)
        return torch.cat([first, x.flatten(2)], dim=2).unsqueeze(-1)


class PositionEmbedding(nn.Module):
    """x + embedding, with a learned number for each channel of each pixel.

    Args:
        channels: how many there are.
        size: the rows and columns of the images that it takes.
    """

    def __init__(self, channels: int, size: Pair, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.embedding = nn.Parameter(torch.zeros(channels, *size, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """The images (N, C, H, W), each with the same numbers added."""
        return x + self.embedding


def first_pixel(x: Tensor) -> Tensor:
    """The first pixel of each image, as a row of numbers."""
    return x[:, :, 0, 0]


def of_pixels(attention: nn.MultiheadAttention) -> PixelAttention | None:
    """The attention of pixels with another's parameters; None if the other has more than that."""
    plain = attention._qkv_same_embed_dim and attention.bias_k is None and not attention.add_zero_attn
    if not plain or not attention.batch_first:
        return None
    has_bias = attention.in_proj_bias is not None
    other = PixelAttention(attention.embed_dim, attention.num_heads, attention.dropout, has_bias)
    other.in_proj_weight, other.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
    other.out_proj = attention.out_proj
    return other.train(attention.training)


def _read(m: PixelAttention) -> Layer:
    kernel, out_kernel = ops.to_numpy(m.in_proj_weight), ops.to_numpy(m.out_proj.weight)
    biases = (None if bias is None else ops.to_numpy(bias) for bias in (m.in_proj_bias, m.out_proj.bias))
    return layers.Attention(kernel, out_kernel, m.num_heads, *biases, m.dropout, str(ops.dtype(m.in_proj_weight)))


READERS: dict[type[nn.Module], Callable[[Any], Layer]] = {
    PixelAttention: _read,
    ClassToken: lambda m: layers.ClassToken(ops.to_numpy(m.token), str(ops.dtype(m.token))),
    PositionEmbedding: lambda m: layers.PositionEmbedding(ops.to_numpy(m.embedding), str(ops.dtype(m.embedding))),
}
