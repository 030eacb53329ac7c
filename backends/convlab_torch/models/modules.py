"""Modules that PyTorch lacks: a scale and shift of channels, norms and dense layers of pixels, stochastic depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """In training each image is 0 with the probability p, and the others are divided by 1 - p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The images, in inference as they are."""
        if not self.training or not self.p:
            return x
        ones = (1,) * (x.ndim - 1)
        kept = torch.rand((len(x), *ones), device=x.device) >= self.p
        return x * kept / (1 - self.p)


class ChannelAffine(nn.Module):
    """x * weight + bias, with one number of each for each channel.

    Args:
        channels: how many there are; 1 for one number for all.
        scale, shift: whether there is a weight, and whether there is a bias.
        trained: whether they are parameters, or buffers.
    """

    def __init__(
        self,
        channels: int,
        scale: bool = True,
        shift: bool = True,
        trained: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.scale, self.shift, self.trained = channels, scale, shift, trained
        for name, has, start in (("weight", scale, 1.0), ("bias", shift, 0.0)):
            numbers = torch.full((channels,), start)
            if has and not trained:
                self.register_buffer(name, numbers)
            else:
                self.register_parameter(name, nn.Parameter(numbers) if has else None)

    weight: Tensor | None
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, C, H, W), or rows (N, C), with its channels scaled and shifted."""
        shape = -1, *(1,) * (x.ndim - 2)
        y = x if self.weight is None else x * self.weight.view(shape)
        return y if self.bias is None else y + self.bias.view(shape)


class LayerNorm2d(nn.LayerNorm):
    """`nn.LayerNorm` over the channels of each pixel of images (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The image, normalised."""
        x = F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.movedim(-1, 1)


class RMSNorm2d(nn.RMSNorm):
    """`nn.RMSNorm` over the channels of each pixel of images (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The image, normalised."""
        x = F.rms_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.eps)
        return x.movedim(-1, 1)


class PixelLinear(nn.Linear):
    """`nn.Linear` of the channels of each pixel of images (N, C, H, W), or of sequences or volumes, as `rank` says."""

    rank = 2

    def forward(self, x: Tensor) -> Tensor:
        """The image with other channels."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
