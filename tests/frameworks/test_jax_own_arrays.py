"""Weights of a Flax module's own in another one: a scale that its code takes, and kernels in its own layout."""

from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

from convlab import load, port_weights, save
from convlab.errors import ModelError

X = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype("float32")


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + self.param("gamma", nn.initializers.uniform(1.0), (2,)) * nn.Conv(2, (3, 3))(x)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv, self.gamma = nnx.Conv(2, 2, (3, 3), rngs=rngs), nnx.Param(jax.random.uniform(rngs(), (2,)))

    def __call__(self, x):
        return x + self.gamma[...] * self.conv(x)


class Computed(Linen):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(2, (1, 1))(x) * jax.numpy.exp(self.param("log", nn.initializers.uniform(1.0), (2,)))


def bound(module, seed):
    return module.bind(module.init(jax.random.key(seed), X))


MAKERS = {"linen": lambda seed: bound(Linen(), seed), "nnx": lambda seed: Nnx(nnx.Rngs(seed))}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_modules_own_array_comes_with_the_others(kind, tmp_path):
    source, target = MAKERS[kind](1), MAKERS[kind](2)
    save(source, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", into=target)
    np.testing.assert_array_equal(loaded(X), source(X))
    assert not np.array_equal(target(X), source(X))
    if kind == "linen":
        target = target.unbind()[0].bind(port_weights(None, source, target))
    else:
        nnx.update(target, port_weights(None, source, target))
    np.testing.assert_array_equal(target(X), source(X))


@pytest.mark.parametrize("size", [(3, 3), (2,)])
def test_kernels_of_transposed_convolutions_are_laid_out_as_the_module_has_them(size, tmp_path):
    """Without `transpose_kernel` the inputs stand before the outputs, and nothing is flipped."""
    x = np.ones((1, *(5,) * len(size), 4), "float32")
    modules = [nnx.ConvTranspose(4, 4, size, strides=2, rngs=nnx.Rngs(seed)) for seed in range(2)]
    module = nn.ConvTranspose(4, size, strides=(2,) * len(size))
    pairs = modules, [module.bind(module.init(jax.random.key(seed), x)) for seed in range(2)]
    for source, target in pairs:
        save(source, tmp_path / "model.safetensors")
        np.testing.assert_array_equal(load(tmp_path / "model.safetensors", into=target)(x), source(x))


def test_an_array_that_is_computed_is_refused(tmp_path):
    save(bound(Computed(), 1), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="got other numbers than those in the model's code"):
        load(tmp_path / "model.safetensors", into=bound(Computed(), 2))
