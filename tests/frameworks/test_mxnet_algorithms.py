"""Planned calls under MXNet: recorded, hybridized, exported, in both flavours of array."""

from __future__ import annotations

import numpy as np
import pytest

import convlab
from convlab import mxnet as lab
from convlab.compiled import tiling
from convlab.testing import oracle_gradients
from convlab.truth.oracle import oracle

mx = __import__("convlab_mxnet.ops", fromlist=["mx"]).mx

X = np.random.default_rng(0).standard_normal((2, 24, 26)).astype(np.float32)
# The session on an old NumPy has no numba.
HOSTED = ["host", "fft"] if tiling.numba_installed() else []
K = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)


@pytest.mark.parametrize("flavour", ["np", "nd"])
@pytest.mark.parametrize("algorithm", ["auto", "phase", "taps", *HOSTED])
def test_recorded(algorithm, flavour) -> None:
    x, k = (getattr(mx, flavour).array(each) for each in (X, K))
    x.attach_grad()
    k.attach_grad()
    with mx.autograd.record():
        y = convlab.corr2d(x, k, algorithm=algorithm)
        loss = (y * y).sum()
    loss.backward()
    true = oracle(X, K)
    gradients = oracle_gradients(X, K, 2 * true)
    assert type(y) is type(x)
    np.testing.assert_allclose(y.asnumpy(), true, atol=1e-4)
    np.testing.assert_allclose(x.grad.asnumpy(), gradients.X, atol=1e-3)
    np.testing.assert_allclose(k.grad.asnumpy(), gradients.K, atol=1e-2)


def test_gradients_are_added_up_where_asked() -> None:
    x, k = mx.np.array(X), mx.np.array(K)
    k.attach_grad(grad_req="add")
    for _ in range(2):
        with mx.autograd.record():
            y = convlab.corr2d(x, k, algorithm="direct").sum()
        y.backward()
    np.testing.assert_allclose(k.grad.asnumpy(), 2 * oracle_gradients(X, K, np.ones((2, 20, 23))).K, atol=1e-2)


def test_remembered_calls_record_too() -> None:
    x, k = mx.np.array(np.ones((300, 300), np.float32)), mx.np.array(np.random.default_rng(0).standard_normal((3, 3)))
    k = k.astype("float32")
    k.attach_grad()
    for _ in range(3):
        convlab.corr2d(x, k)
        with mx.autograd.record():
            y = convlab.corr2d(x, k).sum()
        y.backward()
        np.testing.assert_allclose(k.grad.asnumpy(), np.full((3, 3), 298.0**2))


def test_hybridized_layers_stay_exportable(tmp_path) -> None:
    layer = lab.Conv2D((9, 9), seed=0)
    layer.initialize()
    x = mx.np.array(np.random.default_rng(0).standard_normal((1, 64, 64)).astype(np.float32))
    eager = layer(x).asnumpy()
    layer.hybridize()
    np.testing.assert_allclose(layer(x).asnumpy(), eager, atol=1e-4)
    layer.export(str(tmp_path / "layer"))
    assert "convlab" not in (tmp_path / "layer-symbol.json").read_text().replace("convlab_", "")
    weight = layer.weight.data().asnumpy()
    np.testing.assert_allclose(eager, oracle(x.asnumpy(), weight), atol=1e-4)


def test_memory_outlives_what_it_came_from() -> None:
    y = convlab.corr2d(mx.np.array(np.ones((300, 300), np.float32)), mx.np.ones((5, 5)), algorithm="direct")
    junk = [mx.np.array(np.full((300, 300), np.nan, np.float32)) for _ in range(5)]
    np.testing.assert_array_equal((y + 1).asnumpy(), np.full((296, 296), 26.0))
    assert len(junk) == 5
