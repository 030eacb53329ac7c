"""NumPy's layer, read."""

from __future__ import annotations

from typing import Any

from convlab.models.layers.layer import Convolution, Layer
from convlab.models.layers.reading import Model, Part, unbuilt

from ..layers import Conv2D
from ..ops import ops


def read(model: Conv2D, inputs: Any = None) -> Model:
    """See `convlab.models.adapters.Models`."""
    return Model("numpy", [Part("", model, *_read(model))], True, model)


def _read(layer: Conv2D) -> tuple[Layer | None, str]:
    if layer.weight is None:
        raise unbuilt("", layer, "call it once")
    weight, bias = ops.to_numpy(layer.weight), None if layer.bias is None else ops.to_numpy(layer.bias)
    return Convolution.ours(layer.spec, weight, bias, layer.weight.dtype.name), type(layer).__name__
