"""NumPy's layer, built."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from convlab.errors import UnsupportedError
from convlab.models.adapters import Node
from convlab.models.layers.inputs import ONE_IMAGE, Inputs
from convlab.models.layers.layer import Convolution, Layer

from ..layers import Conv2D
from ..ops import ops


def build(layer: Layer, style: str) -> list[Conv2D]:
    """See `convlab.models.adapters.Models`; there is no other style than "convlab"."""
    if not isinstance(layer, Convolution):
        raise UnsupportedError(f"NumPy has no layer {layer.kind!r}, only convlab's convolution.", hint="torch has.")
    dtype = str(layer.spec.dtype)
    if dtype == "bfloat16" and importlib.util.find_spec("ml_dtypes") is None:
        raise UnsupportedError("NumPy has no bfloat16.", hint="it has, where ml_dtypes is installed.")
    options, weight = layer.ours_for("NCHW")
    native = Conv2D(**{**options, "seed": 0, "dtype": None})  # a seed, so that NumPy's global generator isn't used
    native.spec = layer.spec
    native.weight = ops.asarray(weight, dtype)
    native.bias = None if layer.bias is None else ops.asarray(layer.bias, dtype)
    return [native]


def assemble(nodes: Sequence[Node], inputs: Inputs = ONE_IMAGE) -> Conv2D:
    """See `convlab.models.adapters.Models`."""
    if len(nodes) != 1:
        raise UnsupportedError(f"NumPy has no models of {len(nodes)} layers.", hint="torch has.")
    lone: Conv2D = nodes[0].native
    return lone
