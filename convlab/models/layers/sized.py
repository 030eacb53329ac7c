"""A model for images of one size, for which adaptive pooling and resizing are ordinary ones, or do nothing."""

from __future__ import annotations

from dataclasses import replace

from ...errors import ConvlabError
from .inputs import given_values
from .layer import Layer
from .pixels import Upsample
from .pooling import AdaptivePool
from .reading import Model, without
from .resizing import Resize
from .shapes import Known, known_after
from .spatial import Size


def for_size(model: Model, size: Size | None) -> Model:
    """The model without its adaptive pooling and resizing to a size as far as images of a size allow that."""
    adaptive = any(isinstance(part.layer, (AdaptivePool, Resize)) for part in model.parts)
    if size is None or not model.whole or not adaptive:
        return model
    values = given_values(model, size)
    parts, needless = [], set()
    for part in model.parts:
        layer, inputs = part.layer, [values[value] for value in part.inputs]
        if isinstance(layer, (AdaptivePool, Resize)) and inputs[0].size is not None:
            if inputs[0].size == layer.size:
                needless.add(part.value)
            layer = _at(layer, inputs[0].size)
        try:
            values[part.value] = known_after(layer, inputs)
        except ConvlabError:  # The image is too small, which a port and a comparison say themselves.
            values[part.value] = Known()
        parts.append(replace(part, layer=layer))
    return replace(model, parts=without(parts, lambda part: part.value in needless))


def _at(layer: AdaptivePool | Resize, size: Size) -> Layer:
    """What a layer is for images of a size."""
    if isinstance(layer, AdaptivePool):
        return layer.at(size) or layer
    if any(m % n for n, m in zip(size, layer.size, strict=True)):
        return layer
    (down, across), way = (m // n for n, m in zip(size, layer.size, strict=True)), layer.method
    return Upsample((down, across), "bilinear" if way == "bilinear" else "nearest", layer.align_corners)
