"""The gradients of dense layers, which a proof holds to their bounds: after a flattening, and of rows."""

from __future__ import annotations

import numpy as np
import pytest
from making import built, kernel

from convlab import compare, port
from convlab.models.adapters import models_of, read
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.layer import Dense
from convlab.models.layers.steps import steps

WEIGHTS, BIAS = kernel((4, 12)), kernel((4, 1))[:, 0]
ROWS = np.random.default_rng(1).normal(size=(2, 12)).astype("float32")


def by_hand(rows, dy):
    """The gradients of sum(dy * (rows @ K.T + bias))."""
    return {"X": dy @ WEIGHTS.astype(float), "K": dy.T @ rows, "bias": dy.sum(0)}


@pytest.mark.parametrize("images", [False, True], ids=["rows", "images"])
def test_the_frameworks_gradients(framework, images) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(3, 2, 2, 3) if images else (3, 12)), rng.normal(size=(3, 4))
    order = models_of(framework).LAYOUT[1:]
    layers = [*([Flatten(order)] if images else []), Dense(WEIGHTS, BIAS)]
    model = built(framework, *layers)
    (step,) = steps(read(model))
    computed = models_of(framework).gradients(step.natives, x, dy, "float32")
    flat = x.transpose(0, 2, 3, 1) if images and order == "HWC" else x
    expected = by_hand(flat.reshape(3, 12), dy)
    dx = expected["X"].reshape(flat.shape)
    expected["X"] = dx.transpose(0, 3, 1, 2) if images and order == "HWC" else dx
    true, bounds = step.gradients(x, dy, "float32")
    assert set(computed) == {"X", "K", "bias"}
    for name, gradient in computed.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(true[name], expected[name], rtol=1e-12, atol=1e-13)
        assert (np.abs(gradient - true[name]) <= bounds[name]).all()


def test_they_are_part_of_a_proof(framework) -> None:
    ported = port(built("torch", Flatten("CHW"), Dense(WEIGHTS, BIAS)), to=framework, input_size=(2, 3))
    (row,) = ported.evidence.rows
    assert {"gradient of X", "gradient of K", "gradient of bias"} <= set(row.errors)
    assert ported.evidence.same


def test_rows_are_already_flat() -> None:
    ported = port(built("torch", Flatten("CHW"), Dense(WEIGHTS, BIAS)), to="mxnet", inputs=ROWS)
    assert ported.evidence.rows[0].sizes == []
    assert ported.evidence.same


def test_a_wrong_gradient_is_found() -> None:
    import torch

    model, copy = (torch.nn.Sequential(torch.nn.Linear(12, 4)) for _ in range(2))
    copy.load_state_dict(model.state_dict())
    copy[0].register_full_backward_hook(lambda module, slopes, seeds: (0.5 * slopes[0],))
    comparison = compare(model, copy)
    assert comparison.same is False
    assert "The gradients differ" in str(comparison)
