"""Blocks whose channels meet, or become those of squares of pixels, read, built and written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convlab.errors import UnsupportedError
from convlab.models.layers.across_channels import GatedLinearUnit, LocalResponseNorm, PartsSoftmax
from convlab.models.layers.channels import PixelUnshuffle
from convlab.models.layers.layer import Layer
from convlab.models.layers.tokens import Anchors, ConcatenatePixels, Tokens
from convlab.models.source.code import SourceCall, call_of

from .. import channel_blocks

# Each neutral layer, convlab's block, and their fields, which have the same names.
_BLOCKS: tuple[tuple[type[Layer], type[Any], tuple[str, ...]], ...] = (
    (LocalResponseNorm, channel_blocks.LocalResponseNorm, ("size", "alpha", "beta", "k")),
    (PartsSoftmax, channel_blocks.PartsSoftmax, ("parts",)),
    (GatedLinearUnit, channel_blocks.GatedLinearUnit, ()),
    (PixelUnshuffle, channel_blocks.PixelUnshuffle, ("factor", "channels_last")),
    (Anchors, channel_blocks.Anchors, ("count",)),
    (ConcatenatePixels, channel_blocks.ConcatenatePixels, ()),
    (Tokens, channel_blocks.Tokens, ()),
)


def _to(made: Any, names: tuple[str, ...]) -> Callable[..., Any]:
    """What makes an object of another one that has the same fields."""
    return lambda other: made(**{name: getattr(other, name) for name in names})


def _building(make: Callable[[Any], Any]) -> Callable[[Any, str], list[Any]]:
    return lambda layer, style: [make(layer)]


def _build_local_response_norm(layer: LocalResponseNorm, style: str) -> list[Any]:
    if layer.size % 2 == 0:
        raise UnsupportedError(
            f"MXNet's LRN is of an odd number of channels, this one of {layer.size}.",
            hint="train it with size + 1, or leave it out.",
        )
    return [channel_blocks.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)]


def _written(block: Any, names: tuple[str, ...]) -> Callable[[Any], SourceCall]:
    def write(known: Layer) -> SourceCall:
        options = {name: getattr(known, name) for name in names}
        return call_of(f"channel_blocks.{block.__name__}", block.__init__, **options)

    return write


READERS: dict[type, Callable[[Any], Layer]] = {block: _to(layer, names) for layer, block, names in _BLOCKS}
BUILDERS: dict[type[Layer], Callable[[Any, str], list[Any]]] = {
    **{layer: _building(_to(block, names)) for layer, block, names in _BLOCKS},
    LocalResponseNorm: _build_local_response_norm,
}
SOURCES: dict[type[Layer], Callable[[Any], SourceCall]] = {
    layer: _written(block, names) for layer, block, names in _BLOCKS
}
