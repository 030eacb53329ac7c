"""A model for images of one size, for which an adaptive pooling is an ordinary one, or does nothing."""

from __future__ import annotations

from dataclasses import replace

from ...errors import ConvlabError
from .pooling import AdaptivePool
from .reading import INPUT, Model, without
from .shapes import Known, known_after
from .spatial import Size


def for_size(model: Model, size: Size | None) -> Model:
    """The model without its adaptive pooling as far as images of a size allow that."""
    adaptive = any(isinstance(part.layer, AdaptivePool) for part in model.parts)
    if size is None or not model.whole or not adaptive:
        return model
    values = {INPUT: Known(size=size)}
    parts, needless = [], set()
    for part in model.parts:
        layer, inputs = part.layer, [values[value] for value in part.inputs]
        if isinstance(layer, AdaptivePool) and inputs[0].size is not None:
            if inputs[0].size == layer.size:
                needless.add(part.value)
            layer = layer.at(inputs[0].size) or layer
        try:
            values[part.value] = known_after(layer, inputs)
        except ConvlabError:  # The image is too small, which a port and a comparison say themselves.
            values[part.value] = Known()
        parts.append(replace(part, layer=layer))
    return replace(model, parts=without(parts, lambda part: part.value in needless))
