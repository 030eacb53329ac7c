"""Layers whose channels meet, or become those of squares of pixels, read and built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import layers as kl

from convlab.models.layers.across_channels import GatedLinearUnit, LocalResponseNorm, PartsSoftmax
from convlab.models.layers.channels import PixelUnshuffle
from convlab.models.layers.layer import Layer
from convlab.models.layers.tokens import Anchors, ConcatenatePixels, Tokens

from .. import channel_layers

# Each neutral layer, Keras's of convlab's own, and their fields, which have the same names.
_LAYERS: tuple[tuple[type[Layer], type[kl.Layer], tuple[str, ...]], ...] = (
    (LocalResponseNorm, channel_layers.LocalResponseNorm, ("size", "alpha", "beta", "k")),
    (PartsSoftmax, channel_layers.PartsSoftmax, ("parts",)),
    (GatedLinearUnit, channel_layers.GatedLinearUnit, ()),
    (PixelUnshuffle, channel_layers.PixelUnshuffle, ("factor", "channels_last")),
    (Anchors, channel_layers.Anchors, ("count",)),
    (ConcatenatePixels, channel_layers.ConcatenatePixels, ()),
    (Tokens, channel_layers.Tokens, ()),
)


def _to(made: Any, names: tuple[str, ...], **further: Any) -> Callable[..., Any]:
    """What makes an object of another one that has the same fields."""
    return lambda other: made(**{name: getattr(other, name) for name in names}, **further)


def _building(make: Callable[[Any], kl.Layer]) -> Callable[[Any, str], list[kl.Layer]]:
    return lambda layer, style: [make(layer)]


KINDS = tuple(kind for _, kind, _ in _LAYERS)
READERS: dict[type, Callable[[Any], Layer]] = {kind: _to(layer, names) for layer, kind, names in _LAYERS}
BUILDERS: dict[type[Layer], Callable[[Any, str], list[kl.Layer]]] = {
    layer: _building(_to(kind, names, autocast=False)) for layer, kind, names in _LAYERS
}
