"""`reproducible=True` under JAX's transformations: the bits of NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from revealing import OPTIONS, arrays

import convlab
from convlab.testing import reproducible_gradients

pytestmark = pytest.mark.usefixtures("way")


def same(tensor, array: np.ndarray) -> bool:
    return np.asarray(tensor).tobytes() == array.tobytes()


def function(x, k, b):
    return convlab.corr2d(x, k, bias=b, reproducible=True, backend="jax", **OPTIONS)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_jit_and_vjp(dtype, x64) -> None:
    x, k, b, y, dy = arrays(dtype)
    lab = convlab.jax
    inputs = [lab.asarray(each) for each in (x, k, b)]
    with jax.enable_x64(x64 or dtype == "float64"):
        assert same(jax.jit(function)(*inputs), y)
        slopes = jax.jit(lambda *inputs: jax.vjp(function, *inputs)[1](lab.asarray(dy)))(*inputs)
    for slope, want in zip(slopes, reproducible_gradients(x, k, dy, **OPTIONS), strict=True):
        assert same(slope, want)


def test_vmap_scan_and_second_derivatives() -> None:
    x, k, b, _, dy = arrays()
    images = np.stack([x, x[::-1]])
    expected = np.stack([convlab.corr2d(each, k, bias=b, reproducible=True, **OPTIONS) for each in images])
    assert same(jax.vmap(function, (0, None, None))(images, k, b), expected)
    _, scanned = jax.lax.scan(lambda carry, each: (carry, function(each, k, b)), 0, jnp.asarray(images))
    assert same(scanned, expected)
    # the gradient of X's gradient is another of the three
    slope = jax.jit(jax.grad(lambda k: (jax.vjp(lambda x: function(x, k, b), x)[1](dy)[0] * x).sum()))
    assert same(slope(jnp.asarray(k)), reproducible_gradients(x, k, dy, **OPTIONS).K)


def test_many_products_are_a_loop_to_the_compiler() -> None:
    rng = np.random.default_rng(0)
    x, k = (rng.standard_normal(s).astype("float32") for s in ((1, 20, 9, 8), (2, 20, 3, 5)))
    jitted = jax.jit(lambda x, k: convlab.corr2d(x, k, reproducible=True))
    assert same(jitted(x, k), convlab.corr2d(x, k, reproducible=True))
    assert jitted.lower(x, k).as_text().count("multiply") < 200  # a sum of 300 products


def test_learning_in_one_compiled_scan() -> None:
    """One's own loop, through JAX's autograd, walks learn_kernel's path."""
    rng = np.random.default_rng(0)
    x, y, start = (rng.standard_normal(s).astype("float32") for s in ((9, 8), (7, 7), (3, 2)))
    expected = convlab.learn_kernel(x, y, (3, 2), init=start, lr=2.0**-8, num_steps=20, reproducible=True)

    def step(kernel, _):
        result, pull = jax.vjp(lambda k: convlab.corr2d(jnp.asarray(x), k, reproducible=True), kernel)
        (slope,) = pull(2 * (result - y))
        with jax.enable_x64(True):
            moved = kernel.astype("float64") - slope.astype("float64") * 2.0**-8
            return moved.astype("float32"), None

    kernel, _ = jax.jit(lambda start: jax.lax.scan(step, start, None, length=20))(start)
    assert same(kernel, expected.kernel)


def test_negative_control() -> None:
    """The same sum in float32 under jax.jit isn't NumPy's: XLA fuses multiplications with additions."""
    x, k, *_ = arrays(kind="normal")
    x, k = x[0, 0], k[0, 0]

    def naive(x, k):
        total = x[:6, :8] * k[0, 0]
        for p in range(3):
            for q in range(2):
                if p or q:
                    total = total + x[p : p + 6, q : q + 8] * k[p, q]
        return total

    assert not same(jax.jit(naive)(x, k), naive(x, k))
    assert same(
        jax.jit(lambda x, k: convlab.corr2d(x, k, reproducible=True))(x, k), convlab.corr2d(x, k, reproducible=True)
    )
