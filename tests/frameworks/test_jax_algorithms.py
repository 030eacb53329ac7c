"""Planned calls under JAX's transformations: jit, derivatives of both modes, vmap, scan, sharding."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import convlab
from convlab.truth.oracle import oracle

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 12, 13)), jnp.float32)
K = jnp.asarray(np.random.default_rng(1).standard_normal((5, 4)), jnp.float32)
PLANNED = ["taps", "fft", "phase", "native"]


def native(x, k):
    return lax.conv_general_dilated(x[:, None], k[None, None], (1, 1), "VALID", precision="highest")[:, 0]


def assert_close(tree, expected) -> None:
    for leaf, wanted in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("algorithm", PLANNED)
def test_derivatives_of_both_modes_and_second_order(algorithm) -> None:
    loss = lambda f: lambda x, k: jnp.tanh(f(x, k)).sum()  # noqa: E731
    ours, own = loss(lambda x, k: convlab.corr2d(x, k, algorithm=algorithm)), loss(native)
    assert_close(jax.jit(jax.grad(ours, (0, 1)))(X, K), jax.grad(own, (0, 1))(X, K))
    tangents = jnp.ones_like(X), jnp.ones_like(K)
    assert_close(jax.jvp(ours, (X, K), tangents), jax.jvp(own, (X, K), tangents))
    assert_close(jax.hessian(lambda k: ours(X, k))(K), jax.hessian(lambda k: own(X, k))(K))
    assert_close(jax.jacfwd(lambda k: ours(X, k))(K), jax.jacrev(lambda k: ours(X, k))(K))


@pytest.mark.parametrize("algorithm", ["auto", "fft", "phase", "taps"])
def test_vmap(algorithm) -> None:
    function = lambda x, k: convlab.corr2d(x, k, algorithm=algorithm)  # noqa: E731
    kernels = jnp.stack([K, 2 * K])
    assert_close(jax.vmap(function, (0, None))(X, K), native(X, K))
    assert_close(jax.vmap(function, (None, 0))(X[0], kernels), jnp.stack([native(X[:1], k)[0] for k in kernels]))
    moved = jax.vmap(function, (2, 0), 1)(jnp.moveaxis(X, 0, 2), kernels)
    assert_close(moved, jnp.stack([native(X[i : i + 1], kernels[i])[0] for i in (0, 1)], 1))
    gradients = jax.vmap(jax.grad(lambda x, k: function(x, k).sum(), (0, 1)))(X, kernels)
    expected = [jax.grad(lambda x, k: native(x[None], k).sum(), (0, 1))(X[i], kernels[i]) for i in (0, 1)]
    assert_close(gradients, [jnp.stack(each) for each in zip(*expected, strict=True)])


def test_layers_under_vmap() -> None:
    x, k = (
        jnp.asarray(np.random.default_rng(0).standard_normal(s), jnp.float32)
        for s in ((3, 2, 4, 9, 9), (3, 6, 2, 3, 3))
    )
    run = lambda x, k, algorithm: convlab.corr2d(x, k, groups=2, padding=1, algorithm=algorithm)  # noqa: E731
    batch = jax.vmap(lambda x, k: run(x, k, "fft"))(x, k)
    assert_close(batch, jnp.stack([run(*each, "native") for each in zip(x, k, strict=True)]))


def test_scan_and_jit_with_large_images() -> None:
    """Sizes at which the planner leaves the native convolution, in a loop of XLA's."""
    images = jnp.asarray(np.random.default_rng(0).standard_normal((3, 130, 140)), jnp.float32)
    kernel = jnp.asarray(np.random.default_rng(0).standard_normal((21, 21)), jnp.float32)
    assert convlab.plan(images, kernel).algorithm != "native"
    _, results = jax.jit(lambda x, k: lax.scan(lambda k, x: (k, convlab.corr2d(x, k)), k, x))(images, kernel)
    np.testing.assert_allclose(results, native(images, kernel), atol=1e-3)
    assert "custom_call @convlab" in jax.jit(convlab.corr2d).lower(images, kernel).as_text()


def test_sharded_over_devices_of_one_host() -> None:
    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("rows",))
    x = jax.device_put(jnp.ones((1, 1, 8 * len(devices), 9)), NamedSharding(mesh, PartitionSpec(None, None, "rows")))
    k = jax.device_put(jnp.ones((1, 1, 3, 3)), NamedSharding(mesh, PartitionSpec()))
    np.testing.assert_array_equal(convlab.corr2d(x, k), np.full((1, 1, 8 * len(devices) - 2, 7), 9.0))
    for algorithm in ("auto", "taps", "fft"):
        y = jax.jit(lambda x, k, algorithm=algorithm: convlab.corr2d(x, k, algorithm=algorithm))(x, k)
        np.testing.assert_allclose(y, np.full((1, 1, 8 * len(devices) - 2, 7), 9.0), rtol=1e-6)


def test_shard_map_and_symbolic_shapes() -> None:
    mesh = Mesh(np.array(jax.devices()), ("i",))
    x, k = (jnp.asarray(np.random.default_rng(0).standard_normal(s), jnp.float32) for s in ((4, 100, 100), (12, 12)))
    spec = PartitionSpec("i")
    for algorithm in ("auto", "taps"):
        run = lambda x, k, algorithm=algorithm: convlab.corr2d(x, k, algorithm=algorithm)  # noqa: E731
        y = jax.shard_map(run, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec)(x, k)
        np.testing.assert_allclose(y, native(x, k), atol=1e-3)
    rows, columns = jax.export.symbolic_shape("a, b", constraints=["a >= 50", "b >= 50"])
    shapes = jax.ShapeDtypeStruct((rows, columns), jnp.float32), jax.ShapeDtypeStruct((3, 3), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x, k: convlab.corr2d(x, k)))(*shapes)
    np.testing.assert_allclose(exported.call(x[0], k[:3, :3]), native(x[:1], k[:3, :3])[0], atol=1e-4)


def test_several_devices_share_the_frameworks_own() -> None:
    """XLA's partitioner fails on an FFT of a sharded image."""
    code = """
import jax, numpy as np, convlab
from convlab.truth.oracle import oracle
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()), ("i",))
x, k = np.random.default_rng(0).standard_normal((300, 300)), np.random.default_rng(1).standard_normal((40, 40))
x, k = x.astype("float32"), k.astype("float32")
y = jax.jit(convlab.corr2d)(jax.device_put(x, NamedSharding(mesh, P("i", None))), k)
np.testing.assert_allclose(y, oracle(x, k), atol=1e-2)
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | flags)


def test_eager_results_are_ordinary_arrays() -> None:
    x, k = jnp.ones((300, 300)), jnp.ones((5, 5))
    y = convlab.corr2d(x, k, algorithm="host")
    assert y.devices() == x.devices()
    np.testing.assert_array_equal(jax.jit(lambda y: y + 1)(y), np.full((296, 296), 26.0))
    np.testing.assert_array_equal(y.at[0, 0].set(0)[0, :2], [0, 25])
    np.testing.assert_array_equal(x, np.ones((300, 300)))


def test_float64_with_and_without_the_flag() -> None:
    x, k = np.random.default_rng(0).standard_normal((30, 30)), np.random.default_rng(1).standard_normal((5, 5))
    for algorithm in ("host", "fft", "taps"):
        y = convlab.corr2d(convlab.backend("jax").asarray(x), convlab.backend("jax").asarray(k), algorithm=algorithm)
        assert y.dtype == jnp.float64
        np.testing.assert_allclose(np.asarray(y), oracle(x, k), atol=1e-12)
