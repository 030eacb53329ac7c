"""Flax models whose code computes with their images' sizes, ported for images of one size."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from making import port_parts

from convlab import port

SIZE = (13, 10)
X = np.random.default_rng(0).normal(size=(2, *SIZE, 3)).astype("float32")


def padded(x):
    """The image with a border, so that its sides are multiples of 4."""
    height, width = x.shape[1:3]
    if height % 4 or width % 4:
        x = jnp.pad(x, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)), mode="edge")
    return x


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(4, (2, 2), strides=2)(padded(x)))
        return nn.ConvTranspose(3, (2, 2), strides=(2, 2))(y)[:, : x.shape[1], : x.shape[2]] + x


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.down = nnx.Conv(3, 4, (2, 2), strides=2, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 3, (2, 2), strides=(2, 2), rngs=rngs)

    def __call__(self, x):
        return self.up(nnx.relu(self.down(padded(x))))[:, : x.shape[1], : x.shape[2]] + x


def linen():
    module = Linen()
    return module.bind(module.init(jax.random.key(0), X))


@pytest.mark.parametrize(("make", "to"), [(linen, "jax"), (lambda: Nnx(nnx.Rngs(0)), "jax.nnx")])
def test_a_port_for_one_size_computes_the_same(make, to) -> None:
    model = make()
    ported = port(model, to=to, input_size=SIZE)
    assert ported.evidence.same
    assert ported.size == SIZE
    np.testing.assert_allclose(ported.model(X), model(X), rtol=1e-5, atol=1e-6)


def test_without_a_size_it_is_named() -> None:
    port_parts(linen(), "what depends on the image's size", to="jax")
    port_parts(linen(), "Hint: give input_size=", to="jax")
