"""Well-known networks in miniature, as people write them in Flax, linen and nnx, with weights that do something."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class ResidualBlock(nn.Module):
    features: int
    strides: int = 1

    @nn.compact
    def __call__(self, x, train=True):
        norm = {"use_running_average": not train}
        y = nn.Conv(self.features, (3, 3), strides=self.strides, padding=1, use_bias=False, name="conv1")(x)
        y = nn.relu(nn.BatchNorm(**norm, name="bn1")(y))
        y = nn.Conv(self.features, (3, 3), padding=1, use_bias=False, name="conv2")(y)
        y = nn.BatchNorm(**norm, name="bn2")(y)
        if self.strides != 1:
            x = nn.Conv(self.features, (1, 1), strides=self.strides, padding=0, use_bias=False, name="downsample")(x)
            x = nn.BatchNorm(**norm, name="downsample_bn")(x)
        return nn.relu(y + x)


class ResNet(nn.Module):
    """He et al., arXiv:1512.03385; inference is asked for by an argument whose default is training."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(4, (5, 5), strides=2, padding=2, use_bias=False, name="stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="stem_bn")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        x = ResidualBlock(4, name="layer1")(x, train)
        x = ResidualBlock(6, strides=2, name="layer2")(x, train)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(3, name="head")(x)


class SqueezeAndExcite(nn.Module):
    keepdims: bool

    @nn.compact
    def __call__(self, x):
        scale = jnp.mean(x, axis=(1, 2), keepdims=self.keepdims)
        scale = nn.relu(nn.Dense(3)(scale))
        scale = nn.sigmoid(nn.Dense(x.shape[-1])(scale))
        return x * (scale if self.keepdims else scale[:, None, None, :])


class SENet(nn.Module):
    """Hu et al., arXiv:1709.01507; the scales are images of one pixel, or rows of numbers."""

    keepdims: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.silu(nn.Conv(5, (3, 3))(x))
        x = SqueezeAndExcite(self.keepdims)(x)
        x = nn.leaky_relu(nn.Conv(4, (3, 3))(x), 0.2)
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        return nn.log_softmax(nn.Dense(3)(x.max((1, 2))))


class InvertedResidual(nnx.Module):
    def __init__(self, inputs, outputs, strides, rngs):
        inner = 2 * inputs
        self.expand = nnx.Conv(inputs, inner, (1, 1), use_bias=False, rngs=rngs)
        self.depthwise = nnx.Conv(
            inner, inner, (3, 3), strides=strides, padding=1, feature_group_count=inner, use_bias=False, rngs=rngs
        )
        self.project = nnx.Conv(inner, outputs, (1, 1), use_bias=False, rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in (inner, inner, outputs)])
        self.adds = strides == 1 and inputs == outputs

    def __call__(self, x):
        y = jax.nn.relu6(self.norms[0](self.expand(x)))
        y = jax.nn.relu6(self.norms[1](self.depthwise(y)))
        y = self.norms[2](self.project(y))
        return x + y if self.adds else y


class MobileNet(nnx.Module):
    """Sandler et al., arXiv:1801.04381, with the global pooling as a pooling by a window as large as the image."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, padding=1, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([InvertedResidual(4, 4, 1, rngs), InvertedResidual(4, 6, 2, rngs)])
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu6(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = nnx.avg_pool(x, x.shape[1:3], strides=x.shape[1:3]).reshape(x.shape[0], -1)
        return self.head(self.dropout(x))


class DenseNet(nnx.Module):
    """Huang et al., arXiv:1608.06993; batch norm is told that it is in inference where it is called."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(4 + 3 * i, rngs=rngs) for i in range(2)])
        self.convs = nnx.List([nnx.Conv(4 + 3 * i, 3, (3, 3), rngs=rngs) for i in range(2)])
        self.last = nnx.Conv(10, 2, (1, 1), rngs=rngs)

    def __call__(self, x, train=True):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = jnp.concatenate([x, conv(nnx.relu(norm(x, use_running_average=not train)))], axis=-1)
        return self.last(nnx.avg_pool(x, (2, 2), strides=(2, 2)))


class UNet(nnx.Module):
    """Ronneberger et al., arXiv:1505.04597, whose lower levels have dilated convolutions in place of smaller images."""

    def __init__(self, rngs):
        self.down = nnx.List([nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Conv(4, 6, (3, 3), kernel_dilation=2, rngs=rngs)])
        self.bottom = nnx.Conv(6, 6, (3, 3), kernel_dilation=4, rngs=rngs)
        self.up = nnx.List([nnx.Conv(12, 4, (3, 3), rngs=rngs), nnx.Conv(8, 2, (1, 1), rngs=rngs)])

    def __call__(self, x):
        above = nnx.elu(self.down[0](x))
        middle = nnx.elu(self.down[1](above))
        below = nnx.gelu(self.bottom(middle), approximate=False)
        x = nnx.elu(self.up[0](jnp.concatenate((middle, below), axis=3)))
        return self.up[1](jnp.concatenate((above, x), axis=3))


def weighed(tree: Any) -> Any:
    """The tree with random numbers in place of those that do nothing, zeros and ones."""
    rng = np.random.default_rng(0)

    def numbers(array: Any) -> Any:
        trivial = jnp.issubdtype(array.dtype, jnp.floating) and bool((array == array.ravel()[0]).all())
        return jnp.asarray(rng.uniform(0.5, 1.5, array.shape), array.dtype) if trivial else array

    return jax.tree.map(numbers, tree)


def linen(module: nn.Module, channels: int = 3, size: int = 16) -> nn.Module:
    """A module bound to variables."""
    return module.bind(weighed(module.init(jax.random.key(0), jnp.ones((1, size, size, channels)))))


def modern(kind: Any) -> Any:
    """An nnx module, made."""
    module = kind(nnx.Rngs(0))
    nnx.update(module, weighed(nnx.state(module, nnx.Not(nnx.RngState))))
    return module


NETS = {
    "resnet": lambda: linen(ResNet()),
    "senet": lambda: linen(SENet()),
    "senet of rows": lambda: linen(SENet(keepdims=False)),
    "mobilenet": lambda: modern(MobileNet),
    "densenet": lambda: modern(DenseNet),
    "unet": lambda: modern(UNet),
}


def inferred(model: Any, x: np.ndarray) -> np.ndarray:
    """The result of a net for images (N, H, W, C) in inference, by Flax alone."""
    if isinstance(model, nnx.Module):
        model = nnx.clone(model)
        model.eval()
    switch = {"train": False} if isinstance(model, (ResNet, DenseNet)) else {}
    return np.asarray(model(jnp.asarray(x), **switch))
