"""Flax's models with a `__call__` of their own, ported whole to each framework, and compared with PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
from flax_nets import NETS, inferred
from making import run

from convlab import compare, port

X = np.random.default_rng(0).normal(size=(2, 3, 18, 16)).astype("float32")


@pytest.mark.parametrize("elsewhere", ["torch", "mxnet", "tensorflow"])
@pytest.mark.parametrize("name", NETS)
def test_a_whole_net_computes_the_same_elsewhere(name, elsewhere):
    model = NETS[name]()
    ported = port(model, to=elsewhere)
    assert ported.untouched == {}
    assert ported.evidence.same is True
    expected = inferred(model, X.transpose(0, 2, 3, 1))
    expected = expected.transpose(0, 3, 1, 2) if expected.ndim == 4 else expected
    assert np.allclose(run(elsewhere, ported.model, X), expected, rtol=1e-4, atol=1e-5)
    assert compare(model, ported).same is True
