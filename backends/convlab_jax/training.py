"""The chapter's training loop with `flax.linen.Conv`."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from convlab.geometry import Pair


class Descent:
    def __init__(self, x: Array, y: Array, size: Pair, init: np.ndarray | None) -> None:
        self.x, self.y = x, y
        self.layer = nn.Conv(1, size, padding="VALID", use_bias=False, param_dtype=x.dtype)
        if init is None:
            # JAX has no global generator; the key is the one that its documentation uses throughout.
            self.params = self.layer.init(jax.random.key(0), x)
        else:
            self.params = {"params": {"kernel": jnp.asarray(init, x.dtype).reshape(*size, 1, 1)}}

    def step(self, lr: float) -> Array:
        loss, self.params = _step(self.layer, self.params, self.x, self.y, lr)
        return loss

    @property
    def kernel(self) -> Array:
        return self.params["params"]["kernel"][:, :, 0, 0]


@partial(jax.jit, static_argnums=0)
def _step(layer: nn.Conv, params: Any, x: Array, y: Array, lr: float) -> tuple[Array, Any]:
    def squared_error(params: Any) -> Array:
        return ((layer.apply(params, x) - y) ** 2).sum()

    loss, gradient = jax.value_and_grad(squared_error)(params)
    return loss, jax.tree.map(lambda p, g: (p - lr * g).astype(p.dtype), params, gradient)
