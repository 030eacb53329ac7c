"""A model for images of one size, for which an adaptive pooling is an ordinary one, or does nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...errors import ConvlabError
from ...geometry.geometry import Pair
from .pooling import AdaptivePool
from .reading import Model, Part


def for_size(model: Model, size: Pair | None) -> Model:
    """The model, its layers one after another, without its adaptive pooling as far as images of a size allow that."""
    adaptive = any(isinstance(part.layer, AdaptivePool) for part in model.parts)
    if size is None or not model.whole or not adaptive:
        return model
    return replace(model, parts=[*_sized(model.parts, size)])


def _sized(parts: Sequence[Part], size: Pair | None) -> Iterator[Part]:
    for part in parts:
        layer = part.layer
        if isinstance(layer, AdaptivePool) and size == layer.size:
            continue
        if isinstance(layer, AdaptivePool) and size is not None:
            layer = layer.at(size) or layer
            yield replace(part, layer=layer)
        else:
            yield part
        try:
            size = layer.output_size(size) if layer is not None and size is not None else None
        except ConvlabError:  # The image is too small, which a port and a comparison say themselves.
            size = None
