"""Code that joins as many values as it has, and has one: the first layer of DenseNet, arXiv:1608.06993."""

from __future__ import annotations

import numpy as np
import torch
from making import run
from torch import nn

from convlab import port
from convlab.models.adapters import read

X = np.random.default_rng(0).normal(size=(2, 3, 8, 9)).astype("float32")


class Dense(nn.Module):
    """Features of however many layers there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

    def forward(self, x):
        features = [self.first(x)]
        return self.last(torch.cat(features, 1))


def test_one_value_joined_is_left_out(framework) -> None:
    torch.manual_seed(0)
    model = Dense().eval()
    assert [part.path for part in read(model).parts] == ["first", "last"]
    ported = port(model, to=framework)
    with torch.no_grad():
        expected = model.double()(torch.from_numpy(X).double()).numpy()
    assert ported.evidence.same
    assert np.abs(run(framework, ported.model, X) - expected).max() < 1e-5
