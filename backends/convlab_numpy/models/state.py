"""The weights of NumPy's layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import Convolution, Layer
from convlab.models.layers.reading import Model

from ..layers import Conv2D


def fill(model: Model, layers: Mapping[str, Layer]) -> Conv2D:
    """See `convlab.models.adapters.Models`."""
    filled: Conv2D = copy.copy(model.native)
    for layer in layers.values():
        assert isinstance(layer, Convolution)
        assert filled.weight is not None
        dtype = filled.weight.dtype
        weight = layer.ours_for(filled.spec.data_format)[1].reshape(filled.weight.shape)
        filled.weight = weight.astype(dtype)
        filled.bias = None if layer.bias is None else layer.bias.astype(dtype)
    return filled


def weights(model: Conv2D) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters.Models`."""
    arrays = {"weight": model.weight, "bias": model.bias}
    return {name: array for name, array in arrays.items() if array is not None}


def with_weights(model: Conv2D, weights: Any) -> Conv2D:
    """See `convlab.models.adapters.Models`."""
    filled = copy.copy(model)
    filled.weight, filled.bias = weights["weight"], weights.get("bias")
    return filled


def save(model: Conv2D, path: Path) -> None:
    """See `convlab.models.adapters.Models`."""
    raise _no_files()


def load(path: Path, model: Conv2D) -> Any:
    """See `convlab.models.adapters.Models`."""
    raise _no_files()


def _no_files() -> UnsupportedError:
    return UnsupportedError("NumPy has no files of weights of its own.", hint="convlab's are for every framework.")
