"""convlab's own layer for NumPy, read and built: see `convlab.models`."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import Convolution, Layer
from convlab.models.layers.reading import Model, Part, unbuilt

from .layers import Conv2D
from .ops import ops

BUILTIN = False
SAME = True  # whether its convolution pads by the image's size
LAYOUT = "NCHW"
FILES = ()


def read(model: Conv2D, inputs: Any = None) -> Model:
    """See `convlab.models.adapters`."""
    return Model("numpy", [Part("", model, *_read(model))], True, model)


def _read(layer: Conv2D) -> tuple[Layer | None, str]:
    name = type(layer).__name__
    if layer.weight is None:
        raise unbuilt("", layer, "call it once")
    weight, bias = layer.weight, layer.bias
    return Convolution.ours(layer.spec, _array(weight), None if bias is None else _array(bias), weight.dtype.name), name


def _array(x: np.ndarray) -> np.ndarray:
    return ops.to_numpy(x)


def build(layer: Layer, style: str) -> list[Conv2D]:
    """See `convlab.models.adapters`; `style` is "convlab" whatever is asked."""
    if not isinstance(layer, Convolution):
        raise UnsupportedError(f"NumPy has no layer {layer.kind!r}, only convlab's convolution.", hint="torch has.")
    if layer.spec.dtype == "bfloat16" and importlib.util.find_spec("ml_dtypes") is None:
        raise UnsupportedError("NumPy has no bfloat16.", hint="it has, where ml_dtypes is installed.")
    options, weight = layer.ours_for("NCHW")
    made = Conv2D(**{**options, "seed": 0, "dtype": None})  # which draws nothing from NumPy's global generator
    made.spec = layer.spec
    made.weight = ops.asarray(weight, layer.spec.dtype)
    made.bias = None if layer.bias is None else ops.asarray(layer.bias, layer.spec.dtype)
    return [made]


def assemble(steps: Sequence[tuple[str, Conv2D]]) -> Conv2D:
    """See `convlab.models.adapters`."""
    if len(steps) != 1:
        raise UnsupportedError(f"NumPy has no models of {len(steps)} layers.", hint="torch has.")
    return steps[0][1]


def run(natives: Sequence[Conv2D], x: np.ndarray, dtype: str) -> np.ndarray:
    """See `convlab.models.adapters`."""
    y = ops.asarray(x, dtype)
    for native in natives:
        nhwc = native.spec.data_format == "NHWC" and np.ndim(native.weight) == 4
        y = native(np.moveaxis(y, 1, -1) if nhwc else y)
        y = np.moveaxis(y, -1, 1) if nhwc else y
    return ops.to_numpy(y)


def gradients(natives: Sequence[Conv2D], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`: none, for NumPy has no autograd."""
    return {}


def fill(model: Model, layers: Mapping[str, Layer]) -> Conv2D:
    """See `convlab.models.adapters`."""
    other = copy.copy(model.native)
    for layer in layers.values():
        assert isinstance(layer, Convolution)
        weight = layer.ours_for(other.spec.data_format)[1].reshape(other.weight.shape)
        other.weight = weight.astype(other.weight.dtype)
        other.bias = None if layer.bias is None else layer.bias.astype(other.weight.dtype)
    return other


def weights(model: Conv2D) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`."""
    found = {"weight": model.weight, "bias": model.bias}
    return {name: array for name, array in found.items() if array is not None}


def with_weights(model: Conv2D, weights: Any) -> Conv2D:
    """See `convlab.models.adapters`."""
    other = copy.copy(model)
    other.weight, other.bias = weights["weight"], weights.get("bias")
    return other


def save(model: Conv2D, path: Path) -> None:
    """See `convlab.models.adapters`."""
    raise UnsupportedError("NumPy has no files of weights of its own.", hint="convlab's are for every framework.")


def load(path: Path, model: Conv2D) -> Any:
    """See `convlab.models.adapters`."""
    raise UnsupportedError("NumPy has no files of weights of its own.", hint="convlab's are for every framework.")
