"""A ported model trains as the original does: a step of gradient descent, worked out in float64 by hand."""

from __future__ import annotations

import numpy as np
import pytest
from making import built, convolution

from convlab import port
from convlab.models.adapters import read
from convlab.models.layers.layer import BatchNorm
from convlab.truth.oracle import oracle_gradients

LR = 0.01
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3, 6, 5)).astype("float32")
SLOPES = RNG.normal(size=(4, 4, 6, 5)).astype("float32")
CONVOLUTION = convolution(4, 3, (3, 3), padding=1, bias=False)
NORM = BatchNorm(*(RNG.uniform(0.5, 2, 4).astype("float32") for _ in range(4)), epsilon=1e-3, momentum=0.8)
# PyTorch keeps the unbiased variance of a batch, MXNet and Flax and Keras the biased one.
UNBIASED = ("torch",)


def by_hand(unbiased: bool) -> dict[str, np.ndarray]:
    """The arrays after one step down the gradient of sum(SLOPES * norm(convolution(X))), norm in training.

    Formulas: Ioffe and Szegedy, arXiv:1502.03167, algorithm 1 and the gradients in section 3.
    """
    x, dy = X.astype(float), SLOPES.astype(float)
    z = CONVOLUTION.reference(x)
    count = z.size / z.shape[1]
    mean, variance = z.mean((0, 2, 3)), z.var((0, 2, 3))

    def columns(array):
        return np.asarray(array, float)[:, None, None]

    spread = np.sqrt(columns(variance) + NORM.epsilon)
    normal = (z - columns(mean)) / spread
    of_scale, of_shift = (dy * normal).sum((0, 2, 3)), dy.sum((0, 2, 3))
    dz = columns(NORM.scale) / spread * (dy - columns(of_shift) / count - normal * columns(of_scale) / count)
    kept = variance * count / (count - 1) if unbiased else variance
    old = NORM.momentum
    return {
        "kernel": CONVOLUTION.kernel - LR * oracle_gradients(x, CONVOLUTION.kernel, dz, padding=1).K,
        "scale": NORM.scale - LR * of_scale,
        "shift": NORM.shift - LR * of_shift,
        "mean": old * NORM.mean + (1 - old) * mean,
        "variance": old * NORM.variance + (1 - old) * kept,
    }


def torch_step(model):
    import torch

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), LR)
    (model(torch.from_numpy(X)) * torch.from_numpy(SLOPES)).sum().backward()
    optimizer.step()
    return model


def tensorflow_step(model):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(X.transpose(0, 2, 3, 1), training=True) * SLOPES.transpose(0, 2, 3, 1))
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign(variable - LR * gradient)
    return model


def jax_step(model):
    import jax

    module, variables = model.unbind()

    def loss(params):
        given = {**variables, "params": params}
        y, updates = module.apply(given, X.transpose(0, 2, 3, 1), train=True, mutable=["batch_stats"])
        return (y * SLOPES.transpose(0, 2, 3, 1)).sum(), updates

    gradients, updates = jax.grad(loss, has_aux=True)(variables["params"])
    params = jax.tree.map(lambda value, gradient: value - LR * gradient, variables["params"], gradients)
    return module.bind({"params": params, **updates})


def nnx_step(model):
    import jax
    from flax import nnx

    model.train()
    gradients = nnx.grad(lambda model: (model(X.transpose(0, 2, 3, 1)) * SLOPES.transpose(0, 2, 3, 1)).sum())(model)
    params = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda value, gradient: value - LR * gradient, params, gradients))
    return model


def mxnet_step(model):
    import mxnet as mx

    with mx.autograd.record():
        loss = (model(mx.nd.array(X)) * mx.nd.array(SLOPES)).sum()
    loss.backward()
    for parameter in model.collect_params().values():
        if parameter.grad_req != "null":
            parameter.set_data(parameter.data() - LR * parameter.grad())
    return model


STEPS = {
    "torch": torch_step,
    "tensorflow": tensorflow_step,
    "jax": jax_step,
    "jax.nnx": nnx_step,
    "mxnet": mxnet_step,
}


def test_a_step_of_training(giver, taker):
    ported = port(built(giver, CONVOLUTION, NORM), to=taker)
    layers = [part.layer for part in read(STEPS[taker](ported.model)).parts]
    arrays = {name: getattr(layer, name) for layer in layers for name in layer.arrays}
    for name, true in by_hand(taker in UNBIASED).items():
        # Float32 sums of 120 numbers.
        assert arrays[name] == pytest.approx(true, rel=1e-5, abs=1e-5), name
