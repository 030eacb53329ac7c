"""The chapter's training loop in JAX/Flax, with convlab's layer."""

# ruff: noqa: E741  # the chapter's own names
from __future__ import annotations

import jax
import jax.numpy as jnp
from chapters import EDGES, TARGET, check

from convlab import jax as lab


def test_the_loop() -> None:
    conv2d = lab.Conv2D((1, 2), out_channels=1, use_bias=False, data_format="NHWC")
    X = jnp.asarray(EDGES).reshape((1, 6, 8, 1))
    Y = jnp.asarray(TARGET).reshape((1, 6, 7, 1))
    lr = 3e-2  # Learning rate
    params = conv2d.init(jax.random.PRNGKey(0), X)
    start, losses = params["params"]["weight"], []

    def loss(params, X, Y):
        Y_hat = conv2d.apply(params, X)
        return ((Y_hat - Y) ** 2).sum()

    for i in range(10):
        l, grads = jax.value_and_grad(loss)(params, X, Y)
        # Update the kernel
        params = jax.tree_util.tree_map(lambda p, g: p - lr * g, params, grads)
        if (i + 1) % 2 == 0:
            print(f"epoch {i + 1}, loss {l:.3f}")
        losses.append(float(l))
    check(start, params["params"]["weight"], losses)
