"""Root mean square norms over the channels: of images, of rows and of tokens, in every framework."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import built, convolution, run
from sources import check
from torch import nn

from convlab import load, port, save
from convlab.models.adapters import models_of, read
from convlab.models.layers.norms import RMSNorm

SCALE = np.float32([0.5, -1.25, 2.0, 1.0])
X = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype("float32")


def by_hand(x, epsilon=1e-3):
    """The definition, pixel by pixel."""
    y = np.zeros(x.shape)
    for n, i, j in np.ndindex(len(x), *x.shape[2:]):
        pixel = x[n, :, i, j].astype(float)
        y[n, :, i, j] = pixel / np.sqrt(sum(pixel**2) / len(pixel) + epsilon) * SCALE
    return y


def test_of_images(framework, tmp_path) -> None:
    layer, models = RMSNorm(SCALE, 1e-3), models_of(framework)
    np.testing.assert_allclose(layer.reference(X.astype(float)), by_hand(X), rtol=1e-12)
    error = layer.error(X.astype(float), np.zeros(X.shape), "float32")
    assert (np.abs(models.run(models.build(layer, "builtin"), X, "float32") - by_hand(X)) <= error).all()
    assert error.max() < 1e-4
    model = built(framework, convolution(4, 4, (1, 1)), layer, convolution(2, 4, (1, 1)))
    ported = port(model, to=framework)
    assert ported.evidence.same
    assert any("gradient of scale" in row.errors for row in ported.evidence.rows)
    check(framework, ported, tmp_path, X)
    expected = run(framework, model, X)
    for suffix in (".safetensors", ".onnx"):
        save(model, path := tmp_path / f"m{suffix}")
        assert np.abs(run(framework, load(path, backend=framework), X) - expected).max() < 1e-5
    (again,) = models.read(models.build(layer, "builtin")[0]).parts
    np.testing.assert_array_equal(again.layer.scale, SCALE)
    assert again.layer.epsilon == pytest.approx(1e-3)


class Tokens(nn.Module):
    """A norm of images as NHWC, of tokens, and of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.pixels, self.norm = nn.Conv2d(4, 4, 1), nn.RMSNorm(4), nn.RMSNorm(4, eps=1e-3)
        self.dense, self.last, self.head = nn.Linear(4, 4), nn.RMSNorm(4, 1e-2), nn.Linear(4, 3)
        for norm in (self.pixels, self.norm, self.last):
            nn.init.normal_(norm.weight)

    def forward(self, x):
        x = self.pixels(self.patches(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x.flatten(2).transpose(1, 2)
        x = x + self.dense(self.norm(x))
        return self.head(self.last(x.mean(1)))


def test_pytorchs_own(framework) -> None:
    torch.manual_seed(0)
    model = Tokens().eval()
    expected = model(torch.from_numpy(X)).detach().numpy()
    ported = port(model, to=framework)
    assert ported.evidence.same
    assert np.abs(run(framework, ported.model, X) - expected).max() < 1e-5


def test_gradients_are_pytorchs() -> None:
    x, dy = torch.tensor(X, dtype=torch.float64, requires_grad=True), np.random.default_rng(1).normal(size=X.shape)
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    y = nn.functional.rms_norm(x.movedim(1, -1), (4,), scale, 1e-3).movedim(-1, 1)
    y.backward(torch.from_numpy(dy))
    slopes, bounds = RMSNorm(SCALE, 1e-3).gradients(X.astype(float), dy, "float64")
    assert {*slopes} == {*bounds} == {"X", "scale"}
    for name, tensor in (("X", x), ("scale", scale)):
        assert (np.abs(slopes[name] - tensor.grad.numpy()) <= bounds[name]).all()
        assert bounds[name].max() < 1e-12


def test_an_input_that_is_off_stays_within_the_error() -> None:
    layer, rng, x = RMSNorm(SCALE, 1e-3), np.random.default_rng(1), X.astype(float)
    for size in (1e-6, 1e-2, 0.3):
        moved = x + size * rng.normal(size=x.shape)
        error = layer.error(x, np.abs(moved - x), "float64")
        assert (np.abs(layer.reference(moved) - layer.reference(x)) <= error).all()


def test_onnxs_own(tmp_path) -> None:
    """The operator of opset 23, over the last axis of NHWC."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes = [
        helper.make_node("Transpose", ["X"], ["a"], perm=[0, 2, 3, 1]),
        helper.make_node("RMSNormalization", ["a", "s"], ["b"], axis=-1, epsilon=1e-3),
        helper.make_node("Transpose", ["b"], ["Y"], perm=[0, 3, 1, 2]),
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["N", 4, "H", "W"]) for name in "XY"]
    graph = helper.make_graph(nodes, "m", ends[:1], ends[1:], [onnx.numpy_helper.from_array(SCALE, "s")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.save(model, path := tmp_path / "m.onnx")
    loaded = load(path, backend="torch")
    assert [part.layer.kind for part in read(loaded).parts] == ["rms_norm"]
    assert np.abs(run("torch", loaded, X) - by_hand(X)).max() < 1e-5
