"""What reading and building gluon's layers have in common."""

from __future__ import annotations

from typing import Any, TypeAlias

from convlab.models.layers.pooling import Pool

Block: TypeAlias = Any  # mx.gluon.Block, of which mypy knows nothing

ACTIVATIONS = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "softrelu": "softplus"}
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}


def value_of(parameter: Any) -> Any:
    """A parameter's array, on the first of its devices."""
    return parameter.data(parameter.list_ctx()[0])


def rounds_alike(layer: Pool) -> bool:
    """Whether MXNet's ceil_mode adds no window that begins beyond the image, as PyTorch's never does."""
    assert not isinstance(layer.padding, str)
    (top, _), (left, _) = layer.padding
    return top + layer.stride[0] <= layer.size[0] and left + layer.stride[1] <= layer.size[1]
