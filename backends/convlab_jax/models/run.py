"""Flax's linen layers, run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import Array

from convlab.models.adapters import Arrays
from convlab.models.layers.outputs import arrays_of_results

from ..layers import Conv2D, spec_of
from ..ops import ops
from ..shared.run import forward, tensors, to_oihw
from .sequential import switch_of


def run(natives: Sequence[Any], x: np.ndarray | Arrays, dtype: str) -> np.ndarray | Arrays:
    """See `convlab.models.adapters.Models`."""
    with ops.scope(dtype):
        return arrays_of_results(forward(natives, tensors(x, dtype), _call, _layout), ops.to_numpy)


def _call(native: Any, *values: Array, parameters: Any = None) -> Any:
    """Call a layer, with other parameters if they are given."""
    if not isinstance(native, nn.Module):
        return native(*values)
    module, variables = native.unbind()
    with nn.intercept_methods(infer):
        return module.apply({**variables, "params": parameters} if parameters else variables, *values)


def infer(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    """Call a module in inference mode, wherever it stands in a model and however it was made."""
    switch = switch_of(context.module)
    if switch is not None and context.method_name == "__call__":
        object.__setattr__(context.module, switch, None)  # linen takes the switch once: here or in the call
        attends = isinstance(context.module, nn.MultiHeadDotProductAttention)
        told = 2 if isinstance(context.module, nn.SelfAttention) else 3 if attends else 1  # what isn't a switch
        args, kwargs = args[:told], {**kwargs, switch: True}
    return call(*args, **kwargs)


def _layout(native: Any) -> str:
    if isinstance(native, nn.Sequential):
        return next((_layout(each) for each in native.layers if isinstance(each, nn.Module)), "NHWC")
    return spec_of(native).data_format if isinstance(native, Conv2D) else "NHWC"


def gradients(natives: Sequence[Any], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters.Models`."""
    modules = [native for native in natives if isinstance(native, nn.Module)]
    owner = next((module for module in modules if module.variables.get("params")), None)

    def called(parameters: Any, x: Array) -> Any:
        def call(native: Any, *values: Array) -> Any:
            return _call(native, *values, parameters=parameters if native is owner else None)

        return forward(natives, [x], call, _layout)

    with ops.scope(dtype):
        _, pull = jax.vjp(called, {} if owner is None else owner.variables["params"], ops.asarray(x, dtype))
        slopes, dx = pull(ops.asarray(dy, dtype))
        # What a layer has in layers of its own isn't asked for.
        arrays = {name: ops.to_numpy(slope) for name, slope in slopes.items() if isinstance(slope, Array)}
    return {"X": ops.to_numpy(dx)} | to_oihw(owner, arrays, dtype)
