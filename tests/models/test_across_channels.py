"""Layers whose channels meet, or become those of squares of pixels: AlexNet's norm, split attention, space to depth."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from making import built, convolution, run
from sources import check, check_text
from torch import nn
from torch.nn import functional as F

from convlab import load, port, save
from convlab.errors import UnsupportedError
from convlab.models.adapters import models_of, read
from convlab.models.files.neutral import read_layers, write_layers
from convlab.models.layers.across_channels import LocalResponseNorm, PartsSoftmax
from convlab.models.layers.channels import PixelUnshuffle

X = np.random.default_rng(5).normal(size=(2, 6, 4, 8)).astype("float32")
LAYERS = {
    "norm": LocalResponseNorm(5, 0.5, 0.75, 2.0),
    "norm of an even number": LocalResponseNorm(4, 0.5, 0.5, 1.0),
    "shares": PartsSoftmax(3),
    "squares": PixelUnshuffle(2),
    "squares, TensorFlow's": PixelUnshuffle(2, channels_last=True),
}


def by_hand(layer, x):
    """What a layer computes, number by number."""
    x, result = x.astype(float), np.zeros((len(x), layer.output_channels(6), *layer.output_size(x.shape[2:])))
    for n, c, i, j in np.ndindex(x.shape):
        if isinstance(layer, LocalResponseNorm):
            near = x[n, max(c - layer.size // 2, 0) : c + (layer.size - 1) // 2 + 1, i, j]
            total = layer.k + layer.alpha / layer.size * sum(near**2)
            result[n, c, i, j] = x[n, c, i, j] / total**layer.beta
        elif isinstance(layer, PartsSoftmax):
            others = x[n, c % 2 :: 2, i, j]
            result[n, c, i, j] = np.exp(x[n, c, i, j]) / sum(np.exp(others))
        else:
            place = i % 2 * 2 + j % 2
            result[n, place * 6 + c if layer.channels_last else c * 4 + place, i // 2, j // 2] = x[n, c, i, j]
    return result


@pytest.mark.parametrize("name", LAYERS)
def test_each_framework_has_it(framework, name, tmp_path) -> None:
    layer, models = LAYERS[name], models_of(framework)
    expected = by_hand(layer, X)
    np.testing.assert_allclose(layer.reference(X.astype(float)), expected, rtol=1e-12)
    write_layers([layer], tmp_path / "x.safetensors")
    again = read_layers(tmp_path / "x.safetensors")
    if name == "norm of an even number" and framework == "mxnet":
        with pytest.raises(UnsupportedError, match="an odd number of channels, this one of 4"):
            models.build(layer, "builtin")
        return
    natives = models.build(layer, "builtin")
    error = layer.error(X.astype(float), np.zeros(X.shape), "float32")
    assert (np.abs(models.run(natives, X, "float32") - expected) <= error).all()
    assert error.max() < 1e-4
    again += [part.layer for part in models.read(natives[0]).parts]
    assert len(again) == 2
    for other in again:
        assert type(other) is type(layer)
        for each in fields(layer):
            assert getattr(other, each.name) == pytest.approx(getattr(layer, each.name))


def test_other_libraries_count_otherwise() -> None:
    """TensorFlow doesn't divide alpha by the size; MXNet and PyTorch do, and so does convlab."""
    tensorflow = pytest.importorskip("tensorflow")
    layer = LAYERS["norm"]
    last = X.transpose(0, 2, 3, 1)
    theirs = tensorflow.nn.local_response_normalization(last, 2, layer.k, layer.alpha / layer.size, layer.beta)
    np.testing.assert_allclose(np.asarray(theirs).transpose(0, 3, 1, 2), by_hand(layer, X), rtol=1e-5)
    theirs = F.local_response_norm(torch.tensor(X), layer.size, layer.alpha, layer.beta, layer.k)
    np.testing.assert_allclose(theirs, by_hand(layer, X), rtol=1e-5)
    squares = tensorflow.nn.space_to_depth(last, 2)
    np.testing.assert_array_equal(
        np.asarray(squares).transpose(0, 3, 1, 2), by_hand(LAYERS["squares, TensorFlow's"], X)
    )
    np.testing.assert_array_equal(F.pixel_unshuffle(torch.tensor(X), 2), by_hand(LAYERS["squares"], X))


class Early(nn.Module):
    """A stem with AlexNet's norm and YOLO's space to depth."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.squares = nn.Conv2d(6, 4, 1), nn.LocalResponseNorm(3, 0.5), nn.PixelUnshuffle(2)
        self.second = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        x = F.local_response_norm(self.norm(self.first(x)), 5, alpha=0.1, k=2.0)
        return self.second(self.squares(x))


def test_it_is_ported_saved_and_written(framework, tmp_path) -> None:
    torch.manual_seed(0)
    model = Early().eval()
    expected = run("torch", model, X)
    ported = port(model, to=framework)
    assert ported.evidence.same
    assert np.abs(run(framework, ported.model, X) - expected).max() < 1e-5
    check(framework, ported, tmp_path, X)
    assert np.abs(run("torch", port(ported.model, to="torch").model, X) - expected).max() < 1e-5
    for suffix in (".safetensors", ".onnx"):
        save(ported, path := tmp_path / f"early{suffix}")
        assert np.abs(run(framework, load(path, backend=framework), X) - expected).max() < 1e-5


def test_the_rest_of_the_source(framework, tmp_path) -> None:
    layers = LAYERS["shares"], LAYERS["squares, TensorFlow's"], LocalResponseNorm(3, 0.5, 0.5, 2.0)
    model = built(framework, convolution(6, 6, (1, 1)), *layers)
    check_text(framework, models_of(framework).source(read(model).parts, None), model, tmp_path, X)
