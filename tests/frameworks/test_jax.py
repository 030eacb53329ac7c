"""convlab inside JAX and Flax: transformations, 64-bit types, linen and nnx modules, training."""

from __future__ import annotations

import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization

import convlab
from convlab import errors
from convlab import jax as lab
from convlab.testing import error_bound, gradient_bounds, oracle_gradients
from convlab.truth.oracle import oracle

rng = np.random.default_rng(0)
X = jnp.asarray(rng.standard_normal((2, 3, 8, 9)), "float32")
K = jnp.asarray(rng.standard_normal((4, 3, 3, 2)), "float32")


def close(y, x, k, **options) -> bool:
    x, k = np.asarray(x), np.asarray(k)
    return bool((np.abs(np.asarray(y) - oracle(x, k, **options)) <= error_bound(x, k, **options)).all())


@pytest.mark.parametrize("options", [{}, {"padding": "same", "stride": 2}, {"padding": 1, "padding_mode": "circular"}])
def test_jit(options) -> None:
    jitted = jax.jit(lambda x, k: convlab.corr2d(x, k, **options))
    assert close(jitted(X, K), X, K, **options)
    assert close(jitted(X[0, 0], K[0, 0]), X[0, 0], K[0, 0], **options)


def test_grad_vmap_scan_and_second_derivatives() -> None:
    images, kernels = X[:, 0], K[:2, 0]
    for y, x, k in zip(jax.vmap(convlab.corr2d)(images, kernels), images, kernels, strict=True):
        assert close(y, x, k)
    gradient = jax.jit(jax.grad(lambda k: convlab.corr2d(images[0], k).sum()))(kernels[0])
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(images[0], float), (6, 8))
    np.testing.assert_allclose(gradient, windows.sum((2, 3)), rtol=1e-5, atol=1e-5)
    hessian = jax.hessian(lambda k: (convlab.corr2d(images[0], k) ** 2).sum())(kernels[0])
    flat = np.asarray(convlab.im2col(images[0], (3, 2)), float)
    np.testing.assert_allclose(hessian.reshape(6, 6), 2 * flat @ flat.T, rtol=1e-4, atol=1e-4)
    _, ys = jax.lax.scan(lambda carry, x: (carry, convlab.corr2d(x, kernels[0])), 0, images)
    assert close(ys[1], images[1], kernels[0])
    jvp = jax.jvp(lambda k: convlab.corr2d(images[0], k), (kernels[0],), (kernels[1],))[1]
    assert close(jvp, images[0], kernels[1])


def test_integers_are_exact_under_jit_without_the_x64_flag() -> None:
    big = jnp.full((1, 3), 2**30, "int32")
    for function in (convlab.corr2d, jax.jit(convlab.corr2d), jax.vmap(convlab.corr2d, in_axes=(0, None))):
        images = big[None] if function not in (convlab.corr2d,) else big
        y = function(images, np.full((1, 3), 8)) if images is big else function(images, jnp.full((1, 3), 8))
        assert y.dtype == "int64"
        assert np.asarray(y).ravel().tolist() == [3 * 2**33]


def test_float64_without_the_x64_flag() -> None:
    x, k = np.asarray(X, "float64"), np.asarray(K, "float64")
    y = lab.corr2d(x, k)
    assert y.dtype == "float64"
    assert close(y, x, k)
    assert not jax.config.jax_enable_x64
    assert lab.corr2d(X, k).dtype == "float32"  # beside a JAX array a NumPy array is weak


@pytest.mark.parametrize("mode", ["zeros", "reflect", "symmetric", "replicate", "circular"])
def test_float64_gradients_without_the_x64_flag(mode) -> None:
    x, k = lab.asarray(np.asarray(X[0, 0], "float64") / 3), lab.asarray(np.asarray(K[0, 0], "float64"))
    dy = np.random.default_rng(1).standard_normal((8, 9))
    options = {"padding": "same", "padding_mode": mode}
    expected = oracle_gradients(np.asarray(x), np.asarray(k), dy, **options)
    bounds = gradient_bounds(np.asarray(x), np.asarray(k), dy, "float64", **options)

    def loss(x, k, weights):
        with jax.enable_x64(True):  # the test's own arithmetic is in float64, too
            return (convlab.corr2d(x, k, **options) * weights).sum()

    for transform in (lambda f: f, jax.jit):
        gradients = transform(jax.grad(loss, (0, 1)))(x, k, lab.asarray(dy))
        for got, want, bound in zip(gradients, expected[:2], bounds[:2], strict=True):
            assert got.dtype == "float64"
            assert (np.abs(np.asarray(got) - want) <= bound).all()


def test_float64_layers_without_the_x64_flag() -> None:
    layer = lab.Conv2D(3, out_channels=4, dtype="float64")
    for init in (layer.init, jax.jit(layer.init)):
        assert {str(p.dtype) for p in jax.tree.leaves(init(jax.random.key(0), X))} == {"float64"}
    ours = lab.nnx.Conv2D(3, in_channels=3, out_channels=4, dtype="float64", rngs=nnx.Rngs(0))
    assert {str(p.dtype) for p in jax.tree.leaves(nnx.state(ours))} == {"float64"}


def test_float64_with_the_x64_flag() -> None:
    with jax.enable_x64(True):
        x, k = jnp.asarray(X, "float64"), jnp.asarray(K, "float64")
        gradient = jax.jit(jax.grad(lambda k: convlab.corr2d(x, k).sum()))(k)
        assert gradient.dtype == "float64"
        assert close(jax.jit(convlab.corr2d)(x, k), x, k)


def test_the_compiled_program_moves_no_constants_of_the_image() -> None:
    run = jax.jit(lambda x, k: convlab.corr2d(x, k, padding="same", algorithm="native"))
    text = run.lower(X, K).as_text()
    assert text.count("stablehlo.convolution") == 1
    assert "gather" not in text


def test_several_devices() -> None:
    """On two host devices: committed arrays must not be mixed; sharded batches work."""
    code = """
import jax, jax.numpy as jnp, numpy as np, convlab
from jax.sharding import NamedSharding, PartitionSpec as P
one, two = jax.devices()
X, K = jax.device_put(jnp.ones((4, 5, 5)), one), jax.device_put(jnp.ones((2, 2)), two)
try:
    convlab.corr2d(X, K)
except convlab.errors.MixedDevicesError as error:
    print(error)
X = jax.device_put(jnp.ones((4, 5, 5)), NamedSharding(jax.make_mesh((2,), ("n",)), P("n")))
y = jax.jit(convlab.corr2d)(X, jnp.ones((2, 2)))
print(y.sharding.num_devices, float(y.sum()))
"""
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    import os

    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert "X: got K on ('cpu:1',), X on ('cpu:0',)" in done.stdout
    assert "2 256.0" in done.stdout


# The linen layer.


def test_the_chapters_layer() -> None:
    layer = lab.Conv2D((1, 2))
    assert isinstance(layer, nn.Module)
    image = jnp.asarray(convlab.chapter.edge_image())
    params = layer.init(jax.random.key(0), image)["params"]
    assert {name: value.shape for name, value in params.items()} == {"weight": (1, 2), "bias": (1,)}
    assert not params["bias"].any()
    params = {"weight": jnp.array([[1.0, -1.0]]), "bias": jnp.zeros(1)}
    assert layer.apply({"params": params}, image)[0].tolist() == [0, 1, 0, 0, 0, -1, 0]
    # Exercise 3: its gradient raises nothing.
    gradient = jax.grad(lambda p: layer.apply({"params": p}, image).sum())(params)
    assert gradient["weight"].tolist() == [[float(image[:, :-1].sum()), float(image[:, 1:].sum())]]
    assert gradient["bias"].tolist() == [42]


def test_initial_values_are_flaxs() -> None:
    ours = lab.Conv2D(3, out_channels=64).init(jax.random.key(0), jnp.ones((1, 32, 5, 5)))["params"]["weight"]
    theirs = nn.Conv(64, (3, 3)).init(jax.random.key(0), jnp.ones((1, 5, 5, 32)))["params"]["kernel"]
    assert ours.shape == (64, 32, 3, 3)
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.05)
    hwio = lab.Conv2D(3, out_channels=64, data_format="NHWC").init(jax.random.key(0), jnp.ones((1, 5, 5, 32)))
    assert hwio["params"]["weight"].shape == (3, 3, 32, 64)
    assert float(hwio["params"]["weight"].std()) == pytest.approx(float(theirs.std()), rel=0.05)


def test_seeded_weights_serialisation_and_bad_fields() -> None:
    layer = lab.Conv2D(3, out_channels=6, groups=2, seed=7)
    params = layer.init(jax.random.key(0), jnp.ones((1, 4, 5, 5)))
    bound = 1 / np.sqrt(18)
    expected = np.random.default_rng(7).uniform(-bound, bound, (6, 2, 3, 3)).astype("float32")
    assert np.asarray(params["params"]["weight"]).tobytes() == expected.tobytes()
    restored = serialization.from_bytes(params, serialization.to_bytes(params))
    assert (layer.apply(restored, X[:, :1].repeat(4, 1)) == layer.apply(params, X[:, :1].repeat(4, 1))).all()
    with pytest.raises(errors.GeometryError, match="stride: got 0"):
        lab.Conv2D(3, stride=0)


def test_matches_flaxs_own_layer() -> None:
    theirs, ours = (
        nn.Conv(4, (3, 3), strides=2, padding="SAME"),
        lab.Conv2D(3, out_channels=4, stride=2, padding="same", data_format="NHWC"),
    )
    image = jnp.transpose(X, (0, 2, 3, 1))
    params = theirs.init(jax.random.key(0), image)["params"]
    y = ours.apply({"params": {"weight": params["kernel"], "bias": params["bias"]}}, image)
    np.testing.assert_allclose(y, theirs.apply({"params": params}, image), rtol=1e-5, atol=1e-5)


def train(step, state, images, labels) -> list[float]:
    losses = []
    for _ in range(40):
        loss, state = step(state, images, labels)
        losses.append(float(loss))
    return losses


def problem() -> tuple[jax.Array, jax.Array]:
    images = jax.random.normal(jax.random.key(1), (64, 1, 6, 6))
    return images, (images.mean((1, 2, 3)) > 0).astype("float32")


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.logaddexp(0, logits) - labels * logits)


def test_training_in_a_linen_model_with_optax() -> None:
    import optax

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(lab.Conv2D(3, out_channels=4, padding="same")(x))
            return nn.Dense(1)(x.reshape(x.shape[0], -1))[:, 0]

    images, labels = problem()
    model, optimiser = Model(), optax.adam(1e-2)
    params = model.init(jax.random.key(0), images)

    @jax.jit
    def step(state, images, labels):
        params, moments = state
        loss, gradient = jax.value_and_grad(lambda p: cross_entropy(model.apply(p, images), labels))(params)
        updates, moments = optimiser.update(gradient, moments)
        return loss, (optax.apply_updates(params, updates), moments)

    losses = train(step, (params, optimiser.init(params)), images, labels)
    assert losses[-1] < losses[0] / 4


def test_nnx_layer_trains_and_round_trips() -> None:
    import optax

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.conv = lab.nnx.Conv2D(3, in_channels=1, out_channels=4, padding="same", rngs=rngs)
            self.dense = nnx.Linear(144, 1, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.conv(x))
            return self.dense(x.reshape(x.shape[0], -1))[:, 0]

    model = Model(nnx.Rngs(0))
    optimiser = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimiser, images, labels):
        loss, gradient = nnx.value_and_grad(lambda m: cross_entropy(m(images), labels))(model)
        optimiser.update(model, gradient)
        return loss

    images, labels = problem()
    losses = [float(step(model, optimiser, images, labels)) for _ in range(40)]
    assert losses[-1] < losses[0] / 4
    graph, state = nnx.split(model)
    np.testing.assert_array_equal(nnx.merge(graph, state)(images), model(images))


def test_equal_layers_are_traced_once() -> None:
    a, b = (lab.nnx.Conv2D(3, in_channels=3, out_channels=4, seed=1) for _ in range(2))
    assert nnx.split(a)[0] == nnx.split(b)[0]
    assert hash(lab.Conv2D([3, 3], padding=[[1, 0], [0, 1]])) == hash(lab.Conv2D((3, 3), padding=((1, 0), (0, 1))))


def test_tabulate() -> None:
    assert "Total Parameters: 112" in lab.Conv2D(3, out_channels=4).tabulate(jax.random.key(0), X)


def test_nnx_layer_is_the_linen_layer() -> None:
    ours = lab.nnx.Conv2D(3, in_channels=3, out_channels=4, seed=1)
    linen = lab.Conv2D(3, out_channels=4, seed=1)
    np.testing.assert_array_equal(ours(X), linen.apply(linen.init(jax.random.key(0), X), X))
    assert convlab.corr2d(X, ours.weight).shape == (2, 4, 6, 7)  # an nnx.Param is a JAX array to convlab
    with pytest.raises(errors.GeometryError, match="in_channels: got None"):
        lab.nnx.Conv2D(3, out_channels=4, seed=1)
    with pytest.raises(errors.GeometryError, match="rngs: got None without a seed"):
        lab.nnx.Conv2D(3)
