"""What Flax's users write between layers: splits, powers, quotients, `jnp.where`, statistics of channels."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlab import port

X = np.random.default_rng(0).normal(size=(2, 3, 8, 12)).astype("float32")


class Everyday(nn.Module):
    """A convolution, and code."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (1, 1))(x)
        first, second = jnp.split(x, 2, axis=-1)
        _, middle, last = jnp.split(x, [1, 3], axis=-1)
        y = jnp.maximum(first, second) * middle + nn.glu(x) - last
        size = jnp.abs(x) + 1
        z = x**3 + size**0.5 + jax.lax.rsqrt(size) + 1 / size - 2 / size + jnp.log(size) + nn.log_sigmoid(x)
        z = z + jnp.where(x > 0, x, 0.1 * x) * jnp.where(x > 0, x, 0) - (-x)
        z = z * (x - x.mean(axis=-1, keepdims=True)) / jnp.linalg.norm(x, axis=-1, keepdims=True)
        return jnp.concatenate([y, z], axis=-1)


class Conditioned(nn.Module):
    """What stands in the whole image tells by how much each channel is scaled and shifted."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        rows = nn.Dense(10)(x.mean((1, 2)))
        scale, shift, _ = jnp.split(rows, [4, 8], axis=-1)
        return x * (1 + scale[:, None, None, :]) + shift[:, None, None, :]


@pytest.mark.parametrize("module", [Everyday(), Conditioned()], ids=lambda module: type(module).__name__)
def test_it_is_ported(module) -> None:
    model = module.bind(module.init(jax.random.key(0), jnp.ones((1, 8, 12, 3))))
    ported = port(model, to="jax")
    assert ported.evidence.same
    assert not ported.untouched
    image = X.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ported.model(image), model(image), rtol=1e-4, atol=1e-5)
