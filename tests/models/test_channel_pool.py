"""The greatest channel of each pixel and the mean of all, as in CBAM, arXiv:1807.06521: read, ported and saved."""

from __future__ import annotations

import numpy as np
import pytest
from making import run
from sources import check

from convlab import load, port, save
from convlab.models.adapters import models_of
from convlab.models.files.neutral import read_layers, write_layers
from convlab.models.layers.pooling import ChannelPool

X = np.random.default_rng(3).normal(size=(2, 6, 7, 8)).astype("float32")


def attention():
    """CBAM's attention to pixels, with the ways in which users write it."""
    torch = pytest.importorskip("torch")

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(6, 4, 1)
            self.conv = torch.nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, x):
            x = self.first(x)
            greatest, _ = torch.max(x, dim=1, keepdim=True)
            described = torch.cat([torch.mean(x, 1).unsqueeze(1), greatest, x.amax(1, keepdim=True)], dim=1)
            return x * torch.sigmoid(self.conv(described)) + x.max(1)[0].unsqueeze(1) * x.mean(dim=1, keepdim=True) / (
                x.abs().sum(1, keepdim=True) + x.abs().sum((2, 3), keepdim=True)
            )

    torch.manual_seed(0)
    return Attention().eval()


@pytest.mark.parametrize("function", ["max", "average", "sum"])
def test_each_framework_has_it(framework, function, tmp_path) -> None:
    layer, models = ChannelPool(function), models_of(framework)
    natives = models.build(layer, "builtin")
    reduce = {"max": np.max, "average": np.mean, "sum": np.sum}[function]
    expected = reduce(X.astype(float), axis=1, keepdims=True)
    result = models.run(natives, X, "float32")
    assert result.shape == expected.shape == layer.reference(X).shape
    assert (np.abs(result - expected) <= layer.error(X, np.zeros(X.shape), "float32")).all()
    (part,) = models.read(natives[0]).parts
    assert isinstance(part.layer, ChannelPool)
    assert part.layer.function == function
    write_layers([layer], tmp_path / "x.safetensors")
    (again,) = read_layers(tmp_path / "x.safetensors")
    assert isinstance(again, ChannelPool)
    assert again.function == function


def test_attention_to_pixels_goes_there_and_back(framework, tmp_path) -> None:
    torch = pytest.importorskip("torch")
    model = attention()
    expected = model(torch.tensor(X)).detach().numpy()
    ported = port(model, to=framework)
    assert ported.evidence.same
    np.testing.assert_allclose(run(framework, ported.model, X), expected, rtol=1e-5, atol=1e-5)
    check(framework, ported, tmp_path, X)
    back = port(ported, to="torch").model
    model.load_state_dict(back.state_dict())
    np.testing.assert_array_equal(back(torch.tensor(X)).detach().numpy(), expected)
    save(ported, tmp_path / "x.onnx")
    np.testing.assert_array_equal(
        load(tmp_path / "x.onnx", backend="torch")(torch.tensor(X)).detach().numpy(), expected
    )
