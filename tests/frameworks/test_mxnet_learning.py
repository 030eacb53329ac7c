"""gluon's Trainer in `learn_kernel`, against loops written with gluon alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import learning
import numpy as np
import pytest
from learning import OPTIONS, START, X, Y

from convlab import mxnet as lab
from convlab.truth.oracle import oracle
from convlab_mxnet.ops import mx

OPTIMISERS = [("sgd", {"learning_rate": 1e-4, "momentum": 0.9}), ("adam", {"learning_rate": 0.03})]


@mx.util.use_np
def own_loop(name, arguments):
    layer, losses = mx.gluon.nn.Conv2D(4, 3, padding=1, in_channels=3), []
    layer.initialize()
    layer.weight.set_data(mx.np.array(START))
    trainer = mx.gluon.Trainer(layer.collect_params(), name, arguments)
    for _ in range(12):
        with mx.autograd.record():
            loss = ((layer(mx.np.array(X)) - mx.np.array(Y)) ** 2).sum()
        loss.backward()
        trainer.step(1)
        losses.append(float(loss))
    return losses, layer.weight.data().asnumpy(), layer.bias.data().asnumpy()


@pytest.mark.parametrize(("name", "arguments"), OPTIMISERS, ids=["sgd", "adam"])
def test_walks_its_path(name, arguments) -> None:
    learned = lab.learn_kernel(
        lab.asarray(X), lab.asarray(Y), 3, optimizer=lambda p: mx.gluon.Trainer(p, name, arguments), **OPTIONS
    )
    learning.check_alike(lab, learned, *own_loop(name, arguments))


@pytest.mark.parametrize(
    ("name", "arguments"), [*OPTIMISERS, ("nadam", {"learning_rate": 0.03})], ids=["sgd", "adam", "nadam"]
)
def test_goes_on_with_its_memory(name, arguments, tmp_path) -> None:
    learning.check_resumed(lab, lambda: lambda p: mx.gluon.Trainer(p, name, arguments), tmp_path)


def test_float16() -> None:
    """Its own convolution layer has none on a CPU."""
    rng = np.random.default_rng(0)
    x, truth = rng.standard_normal((9, 9)).astype("float16"), np.array([[1.0, -2.0]], "float16")
    y = lab.asarray(oracle(x, truth).astype("float16"))
    learned = lab.learn_kernel(lab.asarray(x), y, (1, 2), init=[[0.0, 0.0]], lr=2.0**-8, num_steps=40)
    assert lab.ops.dtype(learned.kernel) == "float16"
    np.testing.assert_allclose(lab.to_numpy(learned.kernel), truth, atol=0.01)


def test_several_threads() -> None:
    """MXNet's own autograd crashes there."""
    images = lab.asarray(X), lab.asarray(Y)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(lab.learn_kernel, *images, 3, **OPTIONS, lr=1e-4) for _ in range(8)]
        assert len({tuple(each.result().losses) for each in futures}) == 1
