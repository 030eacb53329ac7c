"""Pooling to a size by windows that may differ and overlap, as VGG has it: built, read, ported and saved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import port_parts, run, words
from sources import check, run_source
from torch import nn

from convlab import load, port, save
from convlab.models.adapters import models_of, read
from convlab.models.layers.pooling import AdaptivePool

X = np.random.default_rng(0).integers(-8, 9, (2, 3, 10, 13)).astype("float32")


@pytest.mark.parametrize("size", [(7, 7), (4, 20)], ids=["smaller", "larger"])
@pytest.mark.parametrize("function", ["average", "max"])
def test_a_layer(framework, function, size) -> None:
    layer, models = AdaptivePool(function, size), models_of(framework)
    pool = nn.AdaptiveAvgPool2d(size) if function == "average" else nn.AdaptiveMaxPool2d(size)
    expected = pool(torch.tensor(X, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(layer.reference(X.astype(float)), expected, rtol=1e-14, atol=1e-14)
    if (framework, function) == ("mxnet", "max"):
        return
    (native,) = models.build(layer, "builtin")
    result = models.run([native], X, "float32")
    assert (np.abs(result - expected) <= layer.error(X.astype(float), np.zeros(X.shape), "float32")).all()
    (again,) = (part.layer for part in models.read(native).parts)
    assert (type(again), again.function, tuple(again.size)) == (AdaptivePool, function, size)


def classifier(pool: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), pool, nn.Flatten(), nn.Linear(16, 2)).eval()


def test_a_classifier_is_ported_saved_and_written(framework, tmp_path) -> None:
    """The size that it gives is known without that of the image, and the dense layer's order with it."""
    model = classifier(nn.AdaptiveAvgPool2d(2))
    ported = port(model, to=framework)
    assert ported.evidence.same
    for x in (X, X[:, :, :9, :5]):
        assert np.abs(run(framework, ported.model, x) - run("torch", model, x)).max() < 1e-4
    save(ported, path := tmp_path / "model.safetensors")
    assert np.abs(run(framework, load(path, backend=framework), X) - run("torch", model, X)).max() < 1e-4
    check(framework, ported, tmp_path, X)


class Siamese(nn.Module):
    """Its tower is called twice, and the convolution stays one."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(3, 4, 3), pool, nn.Linear(16, 1)

    def tower(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.pool(torch.relu(self.conv(x))), 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.head(torch.abs(self.tower(a) - self.tower(b)))


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d((1, 4))])
def test_the_source_is_read_as_a_graph(framework, pool, tmp_path) -> None:
    if framework == "mxnet" and isinstance(pool, nn.AdaptiveMaxPool2d):
        return
    ported = port(Siamese(pool).eval(), to=framework)
    save(ported, tmp_path / "model.safetensors")
    source = run_source(framework, ported.source(), X, X[:1])
    assert read(load(tmp_path / "model.safetensors", into=source)).whole


def test_a_maximum_in_mxnet_needs_the_size() -> None:
    model = classifier(nn.AdaptiveMaxPool2d(2))
    assert "Hint: give input_size=" in words(port_parts(model, "adaptive pooling", to="mxnet").untouched)
    assert port(model, to="mxnet", input_size=(10, 12)).evidence.same
    why = words(port_parts(model, "windows of different sizes", to="mxnet", input_size=(10, 13)).untouched)
    assert "Hint: another input_size has windows alike" in why


def test_kerass_own_is_read() -> None:
    keras = pytest.importorskip("keras")
    image = keras.Input((10, 13, 3))
    model = keras.Model(image, keras.layers.AdaptiveAveragePooling2D((4, 5))(keras.layers.Conv2D(2, 1)(image)))
    ported = port(model, to="torch")
    assert [row.kind for row in ported.evidence.rows] == ["conv2d", "adaptive_pool"]
    assert np.abs(run("torch", ported.model, X) - run("tensorflow", model, X)).max() < 1e-4
