"""Means of windows that reach over the edge: borders that count and that don't, in every framework."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import built, convolution, run
from sources import check
from torch import nn

from convlab import load, port, save
from convlab.models.layers.pooling import Pool

X = np.random.default_rng(3).normal(size=(2, 3, 12, 9)).astype("float32")
POOLS = {
    "ceil": nn.AvgPool2d(3, 2, ceil_mode=True),
    "ceil, a border that counts": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "ceil, a border that doesn't": nn.AvgPool2d((4, 3), (3, 2), 1, ceil_mode=True, count_include_pad=False),
    "a border that doesn't": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
}


@pytest.mark.parametrize("name", POOLS)
def test_pytorchs_go_everywhere_and_back(framework, name, tmp_path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), POOLS[name], nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(X)).numpy()
    ported = port(model, to=framework)
    assert ported.evidence.same
    assert np.abs(run(framework, ported.model, X) - expected).max() < 1e-5
    check(framework, ported, tmp_path, X)
    assert np.abs(run("torch", port(ported.model, to="torch").model, X) - expected).max() < 1e-5
    save(model, a := tmp_path / "a.safetensors")
    save(ported, b := tmp_path / "b.safetensors")
    assert a.read_bytes() == b.read_bytes()
    assert np.abs(run(framework, load(a, backend=framework), X) - expected).max() < 1e-5


def test_sequences_and_volumes(framework) -> None:
    for rank, pool in ((1, nn.AvgPool1d(3, 2, ceil_mode=True)), (3, nn.AvgPool3d(3, 2, 1, ceil_mode=True))):
        first = (nn.Conv1d if rank == 1 else nn.Conv3d)(2, 2, 1)
        model, x = nn.Sequential(first, pool).eval(), np.float32(np.arange(2 * 6**rank)).reshape(1, 2, *(6,) * rank)
        expected = model(torch.from_numpy(x)).detach().numpy()
        ported = port(model, to=framework, inputs=x)
        assert ported.evidence.same
        np.testing.assert_allclose(run(framework, ported.model, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counted", [False, True])
def test_same(framework, counted) -> None:
    """Flax's means with padding "SAME" count the border, Keras's don't."""
    first, pool, x = convolution(4, 3, (1, 1)), Pool("average", (3, 3), (2, 2), "same", counted), X[..., :8, :8]
    whole = first.reference(x.astype(float))
    padded, ones = (np.pad(each, ((0, 0), (0, 0), (0, 1), (0, 1))) for each in (whole, np.ones_like(whole)))
    expected = np.zeros((2, 4, 4, 4))
    for i, j in np.ndindex(4, 4):
        window = (..., slice(2 * i, 2 * i + 3), slice(2 * j, 2 * j + 3))
        expected[..., i, j] = padded[window].sum((2, 3)) / (9 if counted else ones[window].sum((2, 3)))
    np.testing.assert_allclose(pool.reference(whole), expected, rtol=1e-12)
    ported = port(built("jax", first, pool), to=framework, input_size=(8, 8))
    assert ported.evidence.same
    assert np.abs(run(framework, ported.model, x) - expected).max() < 1e-5
    back = port(ported.model, to="jax", input_size=(8, 8))
    assert np.abs(run("jax", back.model, x) - expected).max() < 1e-5
