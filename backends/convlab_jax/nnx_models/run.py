"""Flax's nnx layers, run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array

from convlab.models.adapters import Arrays
from convlab.models.layers.outputs import arrays_of_results

from ..nnx import Conv2D
from ..ops import ops
from ..shared.run import forward, tensors, to_oihw
from . import attention
from .inference import in_inference, switches_of
from .read import is_known


def run(natives: Sequence[Any], x: np.ndarray | Arrays, dtype: str) -> np.ndarray | Arrays:
    """See `convlab.models.adapters.Models`."""
    with ops.scope(dtype):
        return arrays_of_results(forward(natives, tensors(x, dtype), _call, _layout), ops.to_numpy)


def _call(native: Any, *values: Array) -> Any:
    if isinstance(native, nnx.Module) and not is_known(native):
        return in_inference(native)(*values)
    switches = switches_of(native)
    return native(values[0], **switches) if switches else native(*values)


def _layout(native: Any) -> str:
    if isinstance(native, nnx.Sequential):
        return next((_layout(each) for each in native.layers if isinstance(each, nnx.Module)), "NHWC")
    return native.spec.data_format if isinstance(native, Conv2D) else "NHWC"


def gradients(natives: Sequence[Any], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters.Models`."""
    modules = [native for native in natives if isinstance(native, nnx.Module)]
    owner = next((module for module in modules if nnx.state(module, nnx.Param)), None)
    graph, parameters, *others = (None, {}) if owner is None else nnx.split(owner, nnx.Param, ...)

    def called(parameters: Any, x: Array) -> Any:
        def call(native: Any, *values: Array) -> Any:
            if graph is None or native is not owner:
                return _call(native, *values)
            return _call(nnx.merge(graph, parameters, *others), *values)

        return forward(natives, [x], call, _layout)

    with ops.scope(dtype):
        _, pull = jax.vjp(called, parameters, ops.asarray(x, dtype))
        slopes, dx = pull(ops.asarray(dy, dtype))
        if isinstance(owner, attention.ATTENTION):
            return {"X": ops.to_numpy(dx)} | attention.gradients_of(owner, slopes)
        # What a layer has in layers of its own isn't asked for.
        own = {name: slope for name, slope in slopes.items() if isinstance(slope, nnx.Variable)}
        arrays = {name: ops.to_numpy(slope[...]) for name, slope in own.items()}
    return {"X": ops.to_numpy(dx)} | to_oihw(owner, arrays, dtype)
