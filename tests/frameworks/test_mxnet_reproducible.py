"""`reproducible=True` in gluon, recorded and hybridized: the bits of NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from revealing import OPTIONS, arrays

import convlab
from convlab import mxnet as lab
from convlab.testing import reproducible_gradients

import mxnet as mx  # isort: skip (an ordinary import, after convlab's)


pytestmark = pytest.mark.usefixtures("way")


def same(tensor, array: np.ndarray) -> bool:
    return tensor.asnumpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("flavour", ["np", "nd"])
@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_layers_with_gradients(dtype, hybrid, flavour) -> None:
    x, k, b, y, dy = arrays(dtype)
    layer = lab.Conv2D((3, 2), in_channels=4, out_channels=6, dtype=dtype, reproducible=True, **OPTIONS)
    layer.initialize()
    layer.weight.set_data(mx.nd.array(k, dtype=dtype))
    layer.bias.set_data(mx.nd.array(b, dtype=dtype))
    if hybrid:
        layer.hybridize()
    make = mx.np.array if flavour == "np" else mx.nd.array
    image, seed = make(x, dtype=dtype), make(dy, dtype=dtype)
    image.attach_grad()
    with mx.util.np_shape(flavour == "np"), mx.util.np_array(flavour == "np"), mx.autograd.record():
        result = layer(image)
    result.backward(seed)
    assert same(result, y)
    slopes = image.grad, layer.weight.grad(), layer.bias.grad()
    for got, want in zip(slopes, reproducible_gradients(x, k, dy, **OPTIONS), strict=True):
        assert same(got, want)


def test_gradient_requests_are_respected() -> None:
    """Added up where asked for; none for what is beside the point."""
    x, k, b, _, dy = arrays(kind="normal")
    image, kernel = mx.np.array(x), mx.np.array(k)
    kernel.attach_grad("add")
    for _ in range(2):
        with mx.autograd.record():
            y = lab.corr2d(image, kernel, bias=mx.np.array(b), reproducible=True, **OPTIONS)
        y.backward(mx.np.array(dy))
    once = reproducible_gradients(x, k, dy, **OPTIONS).K
    assert same(kernel.grad, once + once)
    assert image.grad is None


def test_in_a_graph_with_other_operators() -> None:
    x, k, _, _, _ = arrays(kind="normal")
    image, kernel = mx.np.array(x[0, 0]), mx.np.array(k[0, 0])
    kernel.attach_grad()
    with mx.autograd.record():
        loss = (lab.corr2d(image * 2, kernel, reproducible=True) ** 2).sum()
    loss.backward()
    doubled = x[0, 0] * 2
    y = convlab.corr2d(doubled, k[0, 0], reproducible=True)
    assert same(kernel.grad, reproducible_gradients(doubled, k[0, 0], 2 * y).K)
