"""Functions and modules of channels that meet, or become those of squares of pixels: read, built and written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convlab.errors import UnsupportedError
from convlab.models.layers.across_channels import GatedLinearUnit, LocalResponseNorm, PartsSoftmax
from convlab.models.layers.channels import PixelUnshuffle
from convlab.models.layers.layer import Layer
from convlab.models.layers.tokens import Anchors, ConcatenatePixels, Tokens


def parts_softmax(x: Tensor, parts: int) -> Tensor:
    """The channels in equal parts: a softmax over the parts, for each channel of a part."""
    n, channels, *size = x.shape
    return x.reshape(n, parts, channels // parts, *size).softmax(dim=1).reshape(x.shape)


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """Squares of pixels as the channels of one, in TensorFlow's order."""
    return F.channel_shuffle(F.pixel_unshuffle(x, factor), x.shape[1])


def anchors(x: Tensor, count: int) -> Tensor:
    """The channels of each pixel in equal parts, which become pixels side by side."""
    n, channels, rows, columns = x.shape
    return x.reshape(n, count, channels // count, rows, columns).movedim(1, -1).flatten(-2)


def concatenate_pixels(*tensors: Tensor) -> Tensor:
    """The pixels of images, one image after another, as images of one column."""
    return torch.cat([each.flatten(2) for each in tensors], dim=2).unsqueeze(-1)


def tokens(x: Tensor) -> Tensor:
    """The pixels of images as the tokens of a sequence, (N, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def _read_local_response_norm(m: nn.LocalResponseNorm) -> Layer:
    return LocalResponseNorm(m.size, float(m.alpha), float(m.beta), float(m.k))


def local_response_norm(size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> nn.Module:
    """The module that computes what `F.local_response_norm` with these arguments does."""
    return nn.LocalResponseNorm(size, alpha, beta, k)


def _build_unshuffle(layer: PixelUnshuffle, style: str) -> list[Any]:
    last = partial(space_to_depth, factor=layer.factor)
    return [last if layer.channels_last else nn.PixelUnshuffle(layer.factor)]


def _read_glu(m: nn.GLU) -> Layer:
    if m.dim != 1:
        raise UnsupportedError(f"its axis is {m.dim}, expected 1, the channels")
    return GatedLinearUnit()


MODULES: dict[type[nn.Module], Callable[[Any], Layer]] = {
    nn.PixelUnshuffle: lambda m: PixelUnshuffle(m.downscale_factor),
    nn.LocalResponseNorm: _read_local_response_norm,
    nn.GLU: _read_glu,
}
FUNCTIONS: dict[Any, Callable[..., Layer]] = {
    parts_softmax: PartsSoftmax,
    space_to_depth: partial(PixelUnshuffle, channels_last=True),
    anchors: Anchors,
    concatenate_pixels: ConcatenatePixels,
    tokens: Tokens,
}
NATIVES: list[tuple[tuple[Any, ...], Callable[..., Any]]] = [
    ((F.pixel_unshuffle, "pixel_unshuffle"), nn.PixelUnshuffle),
    ((F.local_response_norm,), local_response_norm),
    ((F.glu,), nn.GLU),
    ((space_to_depth,), lambda factor: partial(space_to_depth, factor=factor)),
    ((anchors,), lambda count: partial(anchors, count=count)),
    ((parts_softmax,), lambda parts: partial(parts_softmax, parts=parts)),
]
BUILDERS: dict[type[Layer], Callable[[Any, str], list[Any]]] = {
    PixelUnshuffle: _build_unshuffle,
    GatedLinearUnit: lambda layer, style: [nn.GLU(1)],
    PartsSoftmax: lambda layer, style: [partial(parts_softmax, parts=layer.parts)],
    Anchors: lambda layer, style: [partial(anchors, count=layer.count)],
    ConcatenatePixels: lambda layer, style: [concatenate_pixels],
    Tokens: lambda layer, style: [tokens],
    LocalResponseNorm: lambda layer, style: [local_response_norm(layer.size, layer.alpha, layer.beta, layer.k)],
}
SOURCES: dict[Any, Callable[..., str]] = {
    parts_softmax: lambda parts: f"{{0}}.unflatten(1, ({parts}, -1)).softmax(dim=1).flatten(1, 2)",
    space_to_depth: lambda factor: f"F.channel_shuffle(F.pixel_unshuffle({{0}}, {factor}), {{0}}.shape[1])",
    anchors: lambda count: f"{{0}}.unflatten(1, ({count}, -1)).movedim(1, -1).flatten(-2)",
    concatenate_pixels: lambda: "torch.cat([each.flatten(2) for each in ({all})], dim=2).unsqueeze(-1)",
    tokens: lambda: "{0}.flatten(2).transpose(1, 2)",
}
