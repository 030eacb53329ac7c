"""Resizing to a size: Keras's layer, and what it doesn't do, read and built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import Layer
from convlab.models.layers.resizing import Resize, ResizeLike

from .. import resizing_layers

# The names that Keras has for what it knows.
_NAMES = {"nearest_exact": "nearest", "bilinear": "bilinear"}


def _read(m: Any) -> Layer:
    """Keras's layer, or its operation, which has the same options."""
    if m.interpolation not in _NAMES.values():
        raise UnsupportedError(f"its interpolation is {m.interpolation}, expected nearest or bilinear")
    for option in ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio"):
        if getattr(m, option, False):
            raise UnsupportedError(f"only Keras resizes with {option}")
    return Resize((m.height, m.width), next(ours for ours, theirs in _NAMES.items() if theirs == m.interpolation))


def _build(layer: Resize, style: str) -> list[kl.Layer]:
    if layer.method in _NAMES and not (layer.align_corners and layer.method == "bilinear"):
        return [kl.Resizing(*layer.size, _NAMES[layer.method], data_format="channels_last", autocast=False)]
    return [resizing_layers.Resize(layer.size, layer.method, layer.align_corners, autocast=False)]


def _build_like(layer: ResizeLike, style: str) -> list[kl.Layer]:
    return [resizing_layers.ResizeLike(layer.method, layer.align_corners, autocast=False)]


READERS: dict[type, Callable[[Any], Layer]] = {
    kl.Resizing: _read,
    resizing_layers.Resize: lambda m: Resize(m.size, m.method, m.align_corners),
    resizing_layers.ResizeLike: lambda m: ResizeLike(m.method, m.align_corners),
}
BUILDERS: dict[type[Layer], Callable[[Any, str], list[kl.Layer]]] = {Resize: _build, ResizeLike: _build_like}
