"""optax in `learn_kernel`, against loops written with JAX and Flax alone; one program for all steps."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import learning
import numpy as np
import optax
import pytest
from learning import OPTIONS, START, X, Y

from convlab import errors
from convlab import jax as lab
from convlab_jax.training import run_steps

OPTIMISERS = [lambda: optax.sgd(1e-4, momentum=0.9), lambda: optax.adam(0.03), lambda: optax.adamw(0.03)]


@pytest.mark.parametrize("optimizer", OPTIMISERS, ids=["sgd", "adam", "adamw"])
def test_walks_its_path(optimizer) -> None:
    layer, own, losses = nn.Conv(4, (3, 3), padding=1), optimizer(), []
    x, y = jnp.asarray(X.transpose(0, 2, 3, 1)), jnp.asarray(Y.transpose(0, 2, 3, 1))
    params = {"kernel": jnp.asarray(START.transpose(2, 3, 1, 0)), "bias": jnp.zeros(4)}
    memory = own.init(params)
    for _ in range(12):
        loss, slopes = jax.value_and_grad(lambda p: ((layer.apply({"params": p}, x) - y) ** 2).sum())(params)
        updates, memory = own.update(slopes, memory, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))
    learned = lab.learn_kernel(jnp.asarray(X), jnp.asarray(Y), 3, optimizer=optimizer(), **OPTIONS)
    learning.check_alike(lab, learned, losses, np.asarray(params["kernel"]).transpose(3, 2, 0, 1), params["bias"])


@pytest.mark.parametrize("optimizer", OPTIMISERS, ids=["sgd", "adam", "adamw"])
def test_goes_on_with_its_memory(optimizer, tmp_path) -> None:
    learning.check_resumed(lab, optimizer, tmp_path)


def test_nothing_is_compiled_again_for_images_of_one_shape() -> None:
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.standard_normal((23, 17))), jnp.asarray(rng.standard_normal((21, 15)))
    lab.learn_kernel(x, y, 3, num_steps=1, lr=1e-5)
    before = run_steps._cache_size()
    for steps, lr in ((7, 1e-5), (300, 1e-6)):
        lab.learn_kernel(x + 1, y, 3, num_steps=steps, lr=lr, seed=steps)
    assert run_steps._cache_size() == before
    for _ in range(2):
        lab.learn_kernel(x, y, 3, optimizer=optax.adam(0.03), seed=0)
    assert run_steps._cache_size() == before + 1


def test_tracers_are_refused() -> None:
    for transform in (jax.jit, jax.grad, lambda f: jax.vmap(f)):
        with pytest.raises(errors.UnsupportedError, match="got tensors that are being traced"):
            transform(lambda x: lab.learn_kernel(x, x[..., 1:], (1, 2)).losses[0])(jnp.ones((3, 4, 5)))


def test_what_is_no_optimiser() -> None:
    for wrong in ("adam", optax.adam, optax.lbfgs()):
        with pytest.raises(errors.GeometryError, match=r"optimizer: got .*, expected one of optax's"):
            lab.learn_kernel(jnp.asarray(X), jnp.asarray(Y), 3, optimizer=wrong, **OPTIONS)
