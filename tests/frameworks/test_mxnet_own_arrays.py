"""Parameters that the code of a gluon block takes: a scale of channels."""

from __future__ import annotations

import numpy as np
from gluon_layers import randomly

from convlab import load, port_weights, save
from convlab.models.adapters import read

import mxnet as mx  # isort: skip (an ordinary import, after convlab's)
from mxnet.gluon import nn  # isort: skip

X = np.random.default_rng(0).normal(size=(2, 2, 8, 8)).astype("float32")


class Scaled(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.conv = nn.Conv2D(2, 3, padding=1, in_channels=2)
            self.gamma = self.params.get("gamma", shape=(1, 2, 1, 1), init=mx.init.Uniform(1))
        randomly(self)

    def hybrid_forward(self, F, x, gamma):
        return F.broadcast_add(x, F.broadcast_mul(self.conv(x), gamma))


def result(block):
    return block(mx.nd.array(X)).asnumpy()


def test_a_blocks_own_array_comes_with_the_others(tmp_path):
    source, target = (Scaled() for _ in range(2))
    save(source, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", into=target)
    np.testing.assert_array_equal(result(loaded), result(source))
    assert not np.array_equal(result(target), result(source))
    carried = port_weights(None, source, target)
    for parameter, array in zip(target.collect_params().values(), carried.values(), strict=True):
        parameter.set_data(array)
    np.testing.assert_array_equal(result(target), result(source))


def test_its_layer_has_its_name():
    parts = read(Scaled()).parts
    assert [part.path for part in parts] == ["conv", "gamma", "broadcast_add0"]
