"""Flattened pixels that aren't taken by a dense layer right away: the order is the original's in every framework."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chains import conv
from making import kernel, run
from sources import check, net
from torch import nn

from convlab import compare, port
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.joining import Concatenate
from convlab.models.layers.layer import BatchNorm, Dense

X = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype("float32")


class Pyramid(nn.Module):
    """Means over 1, 4 and 16 fields, one behind another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(n) for n in (1, 2, 4))
        self.fc = nn.Linear(4 * 21, 5)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        return self.fc(torch.cat([pool(y).flatten(1) for pool in self.pools], dim=1))


def pyramid() -> nn.Module:
    return Pyramid()


def normalised() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.LayerNorm(2 * 14 * 14), nn.Linear(2 * 14 * 14, 5))


def behind_a_function() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.ReLU(), nn.Linear(2 * 14 * 14, 5))


def flat() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())


@pytest.mark.parametrize("make", [pyramid, normalised, behind_a_function, flat])
def test_the_order_is_kept(framework, make, tmp_path):
    torch.manual_seed(0)
    model = make().eval()
    assert port(model, to=framework).evidence.same
    ported = port(model, to=framework, input_size=16)
    np.testing.assert_allclose(run(framework, ported.model, X), run("torch", model, X), rtol=1e-4, atol=1e-5)
    check(framework, ported, tmp_path, X)
    back = port(ported, to="torch")
    np.testing.assert_allclose(run("torch", back.model, X), run("torch", model, X), rtol=1e-4, atol=1e-5)


def test_sequences_and_volumes_keep_it_too(framework):
    for kind, shape in ((nn.Conv1d, (2, 3, 9)), (nn.Conv3d, (2, 3, 5, 6, 4))):
        model = nn.Sequential(kind(3, 2, 3), nn.Flatten()).eval()
        x = np.random.default_rng(1).normal(size=shape).astype("float32")
        result = run(framework, port(model, to=framework).model, x)
        np.testing.assert_allclose(result, run("torch", model, x), rtol=1e-4, atol=1e-5)


def two_branches(columns: np.ndarray, scales: np.ndarray, order: str) -> list:
    """The graph of two flattened images, one behind the other, a batch norm and a dense layer."""
    norm = BatchNorm(*scales, 1e-5, 0.9, rank=0)
    return [
        ("one", conv(4, 3), ["input"]),
        ("one_flat", Flatten(order), ["one"]),
        ("two", conv(2, 3), ["input"]),
        ("two_flat", Flatten(order), ["two"]),
        ("both", Concatenate(), ["one_flat", "two_flat"]),
        ("norm", norm, ["both"]),
        ("head", Dense(columns), ["norm"]),
    ]


@pytest.mark.parametrize("wrong", [False, True])
def test_columns_that_were_reordered_by_hand(framework, wrong):
    """The pixels of one model stand in another order, and so do the columns of its dense layer."""
    # A convolution of 3x3 makes 4x4 pixels of images of 6x6.
    columns, scales = kernel((5, 6 * 16)), np.random.default_rng(1).uniform(0.5, 1.5, (4, 6 * 16)).astype("float32")

    def reordered(rows: np.ndarray) -> np.ndarray:
        parts = [rows[:, :64].reshape(-1, 4, 16), rows[:, 64:].reshape(-1, 2, 16)]
        return np.concatenate([each.swapaxes(1, 2).reshape(len(rows), -1) for each in parts], axis=1)

    others = reordered(columns)
    others[0, 0] += wrong
    a = net("torch", two_branches(columns, scales, "CHW"))
    b = net(framework, two_branches(others, reordered(scales), "HWC"))
    assert compare(a, b, np.random.default_rng(0).normal(size=(2, 3, 6, 6))).same is not wrong
