"""Gluon's models of sequences and volumes whose code is their own."""

from __future__ import annotations

import numpy as np
import pytest

from convlab import port
from convlab_mxnet.ops import mx

nn = mx.gluon.nn


class Sequences(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1D(4, 3, padding=1, in_channels=2, activation="relu")
        self.norm, self.side = nn.BatchNorm(in_channels=4), nn.Conv1D(4, 1, in_channels=4)
        self.pool, self.mean, self.dense = nn.MaxPool1D(2), nn.GlobalAvgPool1D(), nn.Dense(3, in_units=4)

    def hybrid_forward(self, F, x):
        x = self.norm(self.first(x))
        return self.dense(self.mean(self.pool(F.relu(x + self.side(x)))))


class Volumes(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv3D(4, (3, 2, 3), strides=(1, 2, 1), in_channels=2), nn.Dense(3, in_units=4)

    def hybrid_forward(self, F, x):
        return self.dense(F.mean(F.relu(self.conv(x)), axis=(2, 3, 4)))


@pytest.mark.parametrize(("kind", "shape"), [(Sequences, (2, 2, 12)), (Volumes, (2, 2, 5, 6, 7))])
def test_code_of_its_own(kind, shape) -> None:
    model = kind()
    model.initialize(mx.init.Normal(0.5))
    x = mx.nd.array(np.random.default_rng(0).normal(size=shape).astype("float32"))
    ported = port(model, to="mxnet")
    assert ported.evidence.same
    assert not ported.untouched
    np.testing.assert_allclose(ported.model(x).asnumpy(), model(x).asnumpy(), rtol=1e-4, atol=1e-6)
