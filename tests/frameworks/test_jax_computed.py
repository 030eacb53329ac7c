"""Flax's code that convolves by itself, with kernels that are parameters, or computed from them."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convlab import port
from convlab.errors import PartialPortWarning

X = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype("float32")
LAYOUT = ("NHWC", "HWIO", "NHWC")


def standardised(kernel):
    """Kernels of mean 0 and variance 1: arXiv:1903.10520."""
    return (kernel - kernel.mean((0, 1, 2))) / jnp.sqrt(kernel.var((0, 1, 2)) + 1e-5)


class StdConv(nn.Conv):
    """As Big Transfer writes it."""

    def param(self, name, *args, **options):
        array = super().param(name, *args, **options)
        return standardised(array) if name == "kernel" else array


class Own(nn.Module):
    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.normal(0.3), (3, 3, 2, 6))
        bias = self.param("bias", nn.initializers.normal(), (6,))
        options = {"rhs_dilation": (1, 2), "feature_group_count": 2, "dimension_numbers": LAYOUT}
        return jax.lax.conv_general_dilated(x, standardised(kernel), (1, 1), ((1, 1), (2, 1)), **options) + bias


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(Own()(StdConv(4, (3, 3))(x)))
        weights = self.param("weights", nn.initializers.normal(), (6, 5))
        return (x @ weights).mean((1, 2)) @ self.param("last", nn.initializers.normal(), (5, 2))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 3, 4, 2)))
        self.last = nnx.Conv(2, 3, (1, 1), rngs=rngs)

    def __call__(self, x):
        kernel = standardised(self.kernel[...])
        return self.last(nnx.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=LAYOUT)))


def linen():
    module = Linen()
    return module.bind(module.init(jax.random.key(0), X))


@pytest.mark.parametrize(
    ("make", "to", "computed"),
    [
        (linen, "jax", {"StdConv_0/kernel", "Own_0/kernel"}),
        (lambda: Nnx(nnx.Rngs(0)), "jax.nnx", {"kernel"}),
    ],
)
def test_computed_kernels(make, to, computed) -> None:
    """They are ported as they are, and how they are computed is named, since training would compute them anew."""
    model = make()
    with pytest.warns(PartialPortWarning, match="all that inference needs was ported"):
        ported = port(model, to=to)
    assert ported.evidence.same
    assert {*ported.untouched} == computed
    assert all("computes anew from" in note for note in ported.untouched.values())
    np.testing.assert_allclose(ported.model(X), model(X), rtol=1e-5, atol=1e-5)
    kinds = [row.kind for row in ported.evidence.rows]
    assert kinds.count("conv2d") == (3 if to == "jax" else 2)
