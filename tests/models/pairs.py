"""Models whose own code takes an image and a row of numbers, one in each framework."""

from __future__ import annotations

from typing import Any

import numpy as np
from heads import with_integers

IMAGE = np.random.default_rng(0).integers(-3, 4, (2, 3, 8, 7)).astype("float32")
ROW = np.random.default_rng(1).integers(-3, 4, (2, 5)).astype("float32")


def _torch() -> Any:
    import torch
    from torch import nn

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.dense, self.head = nn.Conv2d(3, 4, 3), nn.Linear(5, 4), nn.Linear(13, 2)

        def forward(self, image, row, training_only=None):
            x = torch.relu(self.conv(image)).amax((2, 3))
            return self.head(torch.cat([x, self.dense(row), row], 1))

    return Pair().eval()


def _tensorflow() -> Any:
    import keras
    from keras import layers as kl

    @keras.saving.register_keras_serializable("pairs")
    class Pair(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.conv, self.pool = kl.Conv2D(4, 3, name="conv"), kl.GlobalMaxPooling2D()
            self.dense, self.head = kl.Dense(4, name="dense"), kl.Dense(2, name="head")

        def call(self, image, row):
            x = self.pool(keras.ops.relu(self.conv(image)))
            return self.head(keras.ops.concatenate([x, self.dense(row), row], -1))

        def build_from_config(self, config):
            self(np.moveaxis(IMAGE, 1, -1), ROW)

    model = Pair()
    model.build_from_config({})
    return model


def _jax() -> Any:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Pair(nn.Module):
        @nn.compact
        def __call__(self, image, row):
            x = jnp.max(nn.relu(nn.Conv(4, (3, 3), padding="VALID", name="conv")(image)), axis=(1, 2))
            return nn.Dense(2, name="head")(jnp.concatenate([x, nn.Dense(4, name="dense")(row), row], -1))

    return Pair().bind(Pair().init(jax.random.key(0), np.moveaxis(IMAGE, 1, -1), ROW))


def _nnx() -> Any:
    import jax.numpy as jnp
    from flax import nnx

    class Pair(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), padding="VALID", rngs=rngs)
            self.dense, self.head = nnx.Linear(5, 4, rngs=rngs), nnx.Linear(13, 2, rngs=rngs)

        def __call__(self, image, row):
            x = jnp.max(nnx.relu(self.conv(image)), axis=(1, 2))
            return self.head(jnp.concatenate([x, self.dense(row), row], -1))

    return Pair(nnx.Rngs(0))


def _mxnet() -> Any:
    from convlab_mxnet.ops import mx

    nn = mx.gluon.nn

    class Pair(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(4, 3, in_channels=3)
            self.dense, self.head = nn.Dense(4, in_units=5), nn.Dense(2, in_units=13)

        def hybrid_forward(self, F, image, row):
            x = F.max(F.relu(self.conv(image)), axis=(2, 3))
            return self.head(F.concat(x, self.dense(row), row, dim=1))

    model = Pair()
    model.initialize()
    return model


_MODELS = {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax, "jax.nnx": _nnx, "mxnet": _mxnet}


def pair(framework: str) -> Any:
    """A model of an image and a row of numbers, with small integers for weights."""
    return with_integers(framework, _MODELS[framework]())
