"""`conv_transpose2d` on JAX: beside Flax's own layers, under `jit`, and its derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import convlab
from convlab.testing import oracle, transposed_oracle

rng = np.random.default_rng(0)
Y = jnp.asarray(rng.integers(-8, 9, (2, 4, 5, 6)), "float32")
K = jnp.asarray(rng.integers(-8, 9, (4, 3, 3, 2)), "float32")
OPTIONS = [{}, {"stride": 2, "padding": "same"}, {"stride": (2, 1), "output_padding": (1, 0), "padding": 1}]


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_jit_with_gradients(options, reproducible) -> None:
    def function(y, k):
        return convlab.conv_transpose2d(y, k, **options, reproducible=reproducible)

    for y, k in ((Y, K), (Y[0, 0], K[0, 0])):
        expected = transposed_oracle(y, k, **options)
        np.testing.assert_array_equal(jax.jit(function)(y, k), expected)
        gradient = jax.jit(jax.grad(lambda y: (function(y, k) * expected).sum()))(y)  # noqa: B023
        fitted = {name: value for name, value in options.items() if name != "output_padding"}
        np.testing.assert_array_equal(gradient, oracle(expected, k, **fitted))


@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (4, 2), (2, 3), (4, 3), (5, 2), (3, 1)])
def test_flaxs_own_layer(size, stride, transpose_kernel) -> None:
    """Without `transpose_kernel` its kernel is flipped, and has the channels of Y before those of the result."""
    image = jnp.transpose(Y, (0, 2, 3, 1))
    weight = jnp.asarray(rng.integers(-8, 9, (size, size, 3, 4) if transpose_kernel else (size, size, 4, 3)), "float32")
    bias = jnp.arange(3.0)
    kernel = weight if transpose_kernel else weight[::-1, ::-1].transpose(0, 1, 3, 2)
    ours = {"stride": stride, "data_format": "NHWC", "bias": bias}
    paddings = [
        ("SAME", {"padding": "same"}),
        ([(1, 2), (2, 1)], {"padding": tuple((size - 1 - a, size - 1 - b) for a, b in ((1, 2), (2, 1)))}),
    ]
    # Flax makes room for a whole stride after the last pixel.
    paddings.append(("VALID", {"output_padding": max(stride - size, 0)}))
    for padding, options in paddings:
        if size == 2 and padding not in ("SAME", "VALID"):
            continue
        layer = nn.ConvTranspose(3, (size, size), (stride, stride), padding, transpose_kernel=transpose_kernel)
        expected = layer.apply({"params": {"kernel": weight, "bias": bias}}, image)
        np.testing.assert_array_equal(convlab.conv_transpose2d(image, kernel, **ours, **options), expected)


def test_vmap_scan_and_second_derivatives() -> None:
    images, kernels = Y[:, 0], K[:2, 0]
    for x, y, k in zip(jax.vmap(convlab.conv_transpose2d)(images, kernels), images, kernels, strict=True):
        np.testing.assert_array_equal(x, transposed_oracle(y, k))
    hessian = jax.hessian(lambda k: (convlab.conv_transpose2d(images[0], k) ** 2).sum())(kernels[0])
    unit = np.eye(6).reshape(6, 3, 2)
    copies = np.stack([transposed_oracle(images[0], each).ravel() for each in unit])
    np.testing.assert_allclose(hessian.reshape(6, 6), 2 * copies @ copies.T, rtol=1e-5)
    _, xs = jax.lax.scan(lambda carry, y: (carry, convlab.conv_transpose2d(y, kernels[0])), 0, images)
    np.testing.assert_array_equal(xs[1], transposed_oracle(images[1], kernels[0]))


def test_integers_and_float64_under_jit_without_the_x64_flag() -> None:
    jitted = jax.jit(lambda y: convlab.conv_transpose2d(y, np.array([[2**40, 1]]), stride=2))
    y = np.arange(6).reshape(2, 3)
    x = jitted(convlab.jax.asarray(y, "int64"))
    assert x.dtype == "int64"
    np.testing.assert_array_equal(np.asarray(x), transposed_oracle(y, [[2**40, 1]], stride=2))
    wide = jax.jit(convlab.conv_transpose2d)(*(convlab.jax.asarray(a, "float64") for a in (Y, K)))
    assert wide.dtype == "float64"
    np.testing.assert_array_equal(np.asarray(wide), transposed_oracle(Y, K))
