"""Flax's norms and transposed convolutions, and crops, upsampling and parts of channels in a model's own code."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convlab import port
from convlab.models.adapters import read

X = np.random.default_rng(5).normal(size=(2, 9, 8, 4)).astype("float32")


def close(a, b) -> None:
    assert np.abs(np.asarray(a) - np.asarray(b)).max() <= 1e-5 * np.abs(np.asarray(b)).max()


def shaken(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda array: jnp.asarray(rng.uniform(0.5, 1.5, array.shape), array.dtype), tree)


def check(module, to="jax"):
    """What is ported computes the same, without convlab."""
    variables = shaken(module.init(jax.random.key(0), X))
    ported = port((module, variables), to=to)
    assert ported.evidence.same
    assert not ported.untouched
    close(ported.model(X), module.apply(variables, X))
    return ported


TRANSPOSED = [
    {"padding": "SAME", "strides": (2, 2)},
    {"padding": "VALID", "strides": (2, 1), "transpose_kernel": True},
    {"padding": ((1, 2), (0, 1)), "strides": (2, 2)},
    {"padding": "VALID", "strides": (4, 5), "use_bias": False},
    {"padding": "SAME", "kernel_dilation": (2, 1)},
    {"padding": 1, "strides": (1, 2), "kernel_dilation": (1, 2), "transpose_kernel": True},
]
NORMS = [
    nn.LayerNorm(epsilon=1e-2),
    nn.LayerNorm(use_bias=False),
    nn.GroupNorm(2, epsilon=1e-2),
    nn.GroupNorm(None, group_size=1, use_scale=False),
    nn.InstanceNorm(epsilon=1e-3),
]


@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_transposed_convolutions(options) -> None:
    check(nn.ConvTranspose(3, (3, 2), **options))
    module = nnx.ConvTranspose(4, 3, (3, 2), rngs=nnx.Rngs(0), **options)
    close(port(module, to="jax").model(X), module(X))


@pytest.mark.parametrize("norm", NORMS, ids=range(len(NORMS)))
def test_norms(norm) -> None:
    check(norm)


def test_a_transposed_convolution_comes_first() -> None:
    """Its kernel has the channels of the image last."""
    check(nn.Sequential([nn.ConvTranspose(8, (3, 3), transpose_kernel=True), nn.relu]))


def test_norms_of_nnx() -> None:
    rngs = nnx.Rngs(0)
    for norm in (nnx.LayerNorm(4, rngs=rngs), nnx.GroupNorm(4, 2, rngs=rngs), nnx.InstanceNorm(4, rngs=rngs)):
        nnx.update(norm, shaken(nnx.state(norm)))
        ported = port(norm, to="jax.nnx")
        assert ported.evidence.same
        close(ported.model(X), norm(X))


class Own(nn.Module):
    """A model whose code crops, upsamples and takes channels."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3))(x)
        n, rows, columns, channels = x.shape
        up = jax.image.resize(x, (n, rows * 2, columns * 3, channels), "bilinear")
        nearest = jax.image.resize(up, (n, rows * 4, columns * 6, channels), "nearest")
        part = nearest[:, 1:-2, 3:]
        return nn.ConvTranspose(3, (2, 2))(part[..., 4:6])


def test_code_of_ones_own() -> None:
    ported = check(Own())
    kinds = [part.layer.kind for part in read(ported.model).parts]
    assert kinds == ["conv2d", "upsample", "upsample", "crop", "chunk", "conv_transpose2d"]


def test_a_scale_that_is_trained_and_constants() -> None:
    """Flax has neither, so that convlab has modules for them: one's numbers are parameters, the other's aren't."""
    from convlab.models.adapters import models_of
    from convlab.models.layers.norms import ChannelAffine

    numbers = np.array([0.5, 2.0, 1.0, 3.0], "float32")
    for trained in (True, False):
        layer = ChannelAffine(numbers, -numbers, trained)
        (linen,), (module,) = (models_of(name).build(layer, "builtin") for name in ("jax", "jax.nnx"))
        assert (set(linen.variables) == {"params"}) is trained
        assert bool(nnx.to_flat_state(nnx.state(module, nnx.Param))) is trained
        close(linen(X), X * numbers - numbers)
        close(module(X), X * numbers - numbers)
        close(nn.Module.apply(linen.clone(), shaken(linen.init(jax.random.key(0), X)), X).shape, X.shape)


class Resizing(nn.Module):
    """To a size, of which the second is no whole multiple."""

    method: str
    smoothing: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        x = jax.image.resize(x, (x.shape[0], 5, 40, 4), self.method, antialias=self.smoothing)
        return nn.Conv(2, (1, 1))(x)


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_a_resize_to_a_size(method) -> None:
    ported = check(Resizing(method))
    assert [row.kind for row in ported.evidence.rows] == ["conv2d", "resize", "conv2d"]


def test_a_resize_that_smooths_is_refused() -> None:
    module = Resizing("bilinear", smoothing=True)
    assert "_resize" in str(read((module, module.init(jax.random.key(0), X))).loose)


@pytest.mark.parametrize("order", [(0, 1, 3, 2, 4, 5), (0, 1, 3, 5, 2, 4)], ids=["TensorFlow's", "PyTorch's"])
def test_squares_of_pixels_as_channels(order) -> None:
    class Stem(nn.Module):
        @nn.compact
        def __call__(self, x):
            n, rows, columns, _ = x.shape
            x = nn.Conv(3, (3, 3))(x)
            squares = x.reshape(n, rows // 2, 2, columns // 2, 2, 3).transpose(order)
            return nn.Conv(2, (1, 1))(squares.reshape(n, rows // 2, columns // 2, 12))

    module, x = Stem(), X[:, :8]
    variables = module.init(jax.random.key(0), x)
    ported = port((module, variables), to="jax")
    assert "pixel_unshuffle" in [row.kind for row in ported.evidence.rows]
    close(ported.model(x), module.apply(variables, x))
