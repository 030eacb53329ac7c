"""Borders of every kind, in layers of their own and in convolutions, from PyTorch to each framework."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import run
from sources import check
from torch import nn

from convlab import port

BORDERS = {
    "reflect": (nn.Sequential(nn.ReflectionPad2d((1, 2, 3, 0)), nn.Conv2d(3, 4, 3)), (2, 3, 12, 13)),
    "replicate": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReplicationPad2d(2)), (2, 3, 12, 13)),
    "circular": (nn.Sequential(nn.CircularPad2d((1, 0, 2, 1)), nn.Conv2d(3, 4, 3)), (2, 3, 12, 13)),
    "a value": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConstantPad2d(1, 0.5)), (2, 3, 12, 13)),
    "in a convolution": (nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect"), (2, 3, 12, 13)),
    "of sequences": (nn.Sequential(nn.ReflectionPad1d(2), nn.Conv1d(3, 4, 3), nn.ReplicationPad1d((1, 0))), (2, 3, 12)),
}
XFAIL = pytest.mark.xfail(strict=True, reason="MXNet has no such border")


@pytest.mark.parametrize("name", BORDERS)
def test_a_border(framework, name, tmp_path, request):
    if (framework, name) == ("mxnet", "circular"):
        request.applymarker(XFAIL)
    model, shape = BORDERS[name]
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    ported = port(model.eval(), to=framework)
    assert ported.evidence.same
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(framework, ported.model, x), expected, rtol=1e-4, atol=1e-5)
    check(framework, ported, tmp_path, x)
