"""Flax's models of sequences and volumes whose code is their own."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab import port
from convlab.models.adapters import models_of, read
from convlab.models.layers.reading import INPUT
from convlab.models.layers.steps import carried, steps


class Sequences(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (5,), strides=(2,), padding="SAME")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = x + nn.Conv(6, (3,), padding="CAUSAL", kernel_dilation=(2,))(x)
        x = jnp.pad(nn.max_pool(x, (2,), (2,)), ((0, 0), (1, 2), (0, 0)), mode="edge")
        x = nn.Dropout(0.1, broadcast_dims=(1,))(x, deterministic=not train)
        x = nn.Dense(4)(nn.Conv(4, (3,), padding="CIRCULAR")(x))
        return nn.Dense(3)(jnp.mean(nn.avg_pool(x, (3,), (1,), padding="SAME")[:, 1:], axis=1))


class Volumes(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (2, 3, 3), rngs=rngs)
        self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.dense = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.relu(self.norm(self.conv(x))), (2, 2, 2), (2, 2, 2))
        return self.dense(x.mean((1, 2, 3)))


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.ConvTranspose(5, (4,), strides=(3,))(x))
        x = nn.ConvTranspose(4, (3,), strides=(2,), padding=((1, 2),), transpose_kernel=True)(x)
        x = jax.image.resize(x, (x.shape[0], 2 * x.shape[1], x.shape[2]), "linear")
        return nn.ConvTranspose(3, (2,), kernel_dilation=(2,), padding="VALID")(x)


def check(backend, model, x, expected):
    """The layers that are read compute by their definition what the model itself does."""
    read_model = read(model, x)
    assert read_model.whole
    result, error = carried(steps(read_model), {INPUT: x.astype(float)})
    assert (np.abs(result - expected) <= error + 1e-6).all()
    assert error.max() < 1e-2 * np.abs(expected).max()
    return models_of(backend).source(read_model.parts, None)


def test_linen() -> None:
    model = Sequences()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 2)))
    x = np.random.default_rng(0).normal(size=(2, 2, 33)).astype("float32")
    source = check("jax", (model, variables), x, model.apply(variables, np.moveaxis(x, 1, -1)))
    assert '"""Takes sequences (N, L, C)."""' in source
    assert "nn.Dropout(0.1, broadcast_dims=(1,), deterministic=not train)" in source


def test_transposed() -> None:
    model = Decoder()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 2)))
    x = np.random.default_rng(0).normal(size=(2, 2, 7)).astype("float32")
    source = check("jax", (model, variables), x, np.moveaxis(model.apply(variables, np.moveaxis(x, 1, -1)), -1, 1))
    assert "nn.ConvTranspose(5, (4,), strides=3" in source
    assert port((model, variables), to="jax", input_size=(7,)).evidence.same  # gradients, too


def test_nnx() -> None:
    model, x = Volumes(nnx.Rngs(0)), np.random.default_rng(0).normal(size=(2, 2, 5, 6, 7)).astype("float32")
    check("jax.nnx", model, x, model(np.moveaxis(x, 1, -1)))
