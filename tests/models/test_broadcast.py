"""An image of one pixel that is repeated for each pixel of another: the pooled branch of DeepLab, arXiv:1706.05587."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import run
from sources import check
from torch import nn
from torch.nn import functional as F

from convlab import compare, load, port, save
from convlab.models.adapters import read
from convlab.models.files.neutral import read_layers
from convlab.models.layers.joining import BroadcastLike

X = np.random.default_rng(0).normal(size=(2, 3, 9, 12)).astype("float32")


class Pooled(nn.Module):
    """Features beside their mean over all pixels."""

    def __init__(self, resized: bool = True) -> None:
        super().__init__()
        self.features, self.project = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.head, self.resized = nn.Conv2d(6, 5, 1), resized

    def forward(self, x):
        x = self.features(x)
        pooled = F.relu(self.project(F.adaptive_avg_pool2d(x, 1)))
        if self.resized:
            pooled = F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=False)
        else:
            pooled = pooled.expand(-1, -1, x.shape[2], x.shape[3])
        return self.head(torch.cat([x, pooled], dim=1))


@pytest.fixture
def model() -> Pooled:
    torch.manual_seed(0)
    return Pooled().eval()


def by_hand(model: Pooled, x: np.ndarray) -> np.ndarray:
    """What it computes, by sums over all pixels."""
    state = {name: value.numpy().astype(float) for name, value in model.state_dict().items()}
    padded = np.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    features = np.einsum("nchwpq,ocpq->nohw", windows, state["features.weight"])
    features += state["features.bias"][:, None, None]
    pooled = features.mean((2, 3)) @ state["project.weight"][:, :, 0, 0].T + state["project.bias"]
    pooled = np.maximum(pooled, 0)[:, :, None, None] + np.zeros((1, 1, *x.shape[2:]))
    head = np.einsum("nchw,oc->nohw", np.concatenate([features, pooled], 1), state["head.weight"][:, :, 0, 0])
    return head + state["head.bias"][:, None, None]


@pytest.mark.parametrize("resized", [True, False], ids=["interpolate", "expand"])
def test_both_spellings_are_read(resized) -> None:
    parts = read(Pooled(resized)).parts
    (repeat,) = [part for part in parts if isinstance(part.layer, BroadcastLike)]
    assert repeat.inputs[1] == parts[0].value


def test_it_is_ported_and_saved(model, framework, tmp_path) -> None:
    ported = port(model, to=framework)
    assert ported.evidence.same
    expected = by_hand(model, X)
    assert np.abs(run(framework, ported.model, X) - expected).max() < 1e-5
    assert compare(model, ported).same
    save(ported, path := tmp_path / "neutral.safetensors")
    assert any(isinstance(layer, BroadcastLike) for layer in read_layers(path))
    assert np.abs(run(framework, load(path, backend=framework), X) - expected).max() < 1e-5
    check(framework, ported, tmp_path, X)


def test_it_goes_on_from_there_and_back(model, framework) -> None:
    back = port(port(model, to=framework).model, to="torch")
    assert back.evidence.same
    assert np.abs(run("torch", back.model, X) - by_hand(model, X)).max() < 1e-5


def test_more_than_one_pixel_is_resized() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            x = self.features(x)
            return x + F.interpolate(F.adaptive_avg_pool2d(x, 2), size=x.shape[-2:])

    assert [part.layer.kind for part in read(Pyramid()).parts] == ["conv2d", "adaptive_pool", "resize_like", "add"]
