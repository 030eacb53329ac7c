"""How both linen's and nnx's layers run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from convlab.models.adapters import ROLES
from convlab.models.layers.layer import Convolution
from convlab.models.layers.spatial import oihw, to_first, to_last
from convlab.models.layers.transposed import turned

from ..ops import ops

_AXES = {"NHWC": to_last, "NCHW": to_first}  # the permutation from the other layout into each


def forward(natives: Any, values: Any, call: Callable[..., Any], layout: Callable[[Any], str]) -> Any:
    """Call native layers in turn on values, NCHW, each layer in its layout; the result, or several, is NCHW again.

    The first layer takes all of the values, the others the result of the one before.
    """
    current, tokens = "NCHW", all(x.ndim > 3 for x in values)  # which images become, stay (N, L, C)
    for native in natives:
        wanted = layout(native)
        if wanted != current:
            values = [jnp.transpose(x, _AXES[wanted](x.ndim - 2)) if x.ndim > 2 else x for x in values]
            # Rows of numbers have no layout; an image that is made of them has the layer's.
            current = wanted
        values = [call(native, *values)]
    (result,) = values
    return jax.tree.map(functools.partial(_to_nchw, tokens=tokens), result) if current == "NHWC" else result


def _to_nchw(x: Array, tokens: bool) -> Array:
    return jnp.transpose(x, to_first(x.ndim - 2)) if x.ndim > (3 if tokens else 2) else x


def tensors(x: Any, dtype: str) -> list[Array]:
    """The values that a layer takes: one array, or a tuple of several."""
    return [ops.asarray(value, dtype) for value in (x if isinstance(x, tuple) else (x,))]


def to_oihw(owner: Any, slopes: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """The gradients of a layer by the names and in the layout of `convlab.models.adapters.Models`."""
    if "embedding" in slopes:
        return {"embedding": slopes["embedding"].transpose(2, 0, 1)}
    if not {"kernel", "weight"} & set(slopes):
        roles = {**ROLES, "bias": "shift"}
        return {roles.get(name, name): slope.reshape(-1) for name, slope in slopes.items()}
    arrays = {"bias": slopes["bias"]} if "bias" in slopes else {}
    if "kernel" in slopes:
        # Flax's transposed convolution doesn't flip its kernel unless it is told to, and has the inputs first.
        kernel, unflipped = slopes["kernel"], not getattr(owner, "transpose_kernel", True)
        pixels = tuple(range(kernel.ndim - 2))
        arrays["K"] = oihw(np.flip(kernel, pixels).swapaxes(-1, -2) if unflipped else kernel)
        if np.max(getattr(owner, "input_dilation", None) or 1) > 1:
            arrays["K"] = turned(arrays["K"], owner.feature_group_count)
    if "weight" in slopes:
        arrays["K"] = Convolution.ours(getattr(owner, "spec", owner), slopes["weight"], None, dtype).kernel
    return arrays
