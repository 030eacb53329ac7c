"""A model of PyTorch whose code decides by its images' sizes, in the other frameworks, for images of one size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heads import results
from making import run
from sources import check, run_source
from torch import nn
from torch.nn import functional as F

from convlab import compare, load, port, save
from convlab.errors import ModelFileError
from convlab.models.adapters import models_of, read

SIZE = (13, 10)
X = np.random.default_rng(0).normal(size=(2, 3, *SIZE)).astype("float32")


class Padded(nn.Module):
    """It pads images to a multiple of 4, halves and doubles them, and cuts the border off."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)

    def forward(self, x):
        height, width = x.shape[-2:]
        if height % 4 or width % 4:
            x = F.pad(x, (0, -width % 4, 0, -height % 4))
        y = self.up(F.relu(self.down(x)))[:, :, :height, :width]
        return F.interpolate(y, size=(2 * height, 2 * width), mode="nearest")


def test_a_model_for_one_size(framework, tmp_path):
    torch.manual_seed(0)
    model = Padded().eval()
    ported = port(model, to=framework, input_size=SIZE)
    assert ported.evidence.same
    assert ported.size == SIZE
    expected = run("torch", model, X)
    np.testing.assert_allclose(run(framework, ported.model, X), expected, rtol=1e-4, atol=1e-5)
    assert check(framework, ported, tmp_path, X).startswith("# For images of 13x10 pixels alone.\n")
    save(ported, tmp_path / "model.onnx")
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape[2:] == [*SIZE]
    np.testing.assert_allclose(session.run(None, {"X": X})[0], expected, rtol=1e-4, atol=1e-5)


class Rows(nn.Module):
    """Its dense layers take images of this size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, stride=2, padding=1)
        self.first, self.last = nn.Linear(2 * 7 * 5, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.last(F.relu(self.first(torch.flatten(F.relu(self.conv(x)), 1))))


def test_a_source_with_dense_layers_on_pixels_shows_its_whole_graph(framework, tmp_path):
    """No image that its reader tries has this size, and yet a file fills it in the order of both graphs."""
    torch.manual_seed(0)
    ported = port(Rows().eval(), to=framework, input_size=SIZE)
    check(framework, ported, tmp_path, X)
    assert read(run_source(framework, ported.source(), X)).whole


class Aligned(nn.Module):
    """What was halved is brought to the size of what it is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x):
        return self.aligned(F.relu(self.first(x)))

    def aligned(self, fine):
        coarse = F.interpolate(self.second(F.max_pool2d(fine, 2)), scale_factor=2)
        if coarse.shape != fine.shape:
            coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")
        return self.last(torch.cat([coarse, fine], 1))


def test_a_file_fills_a_model_that_must_be_told_its_size(framework, tmp_path):
    torch.manual_seed(0)
    ported = port(Aligned().eval(), to=framework, input_size=SIZE)
    save(ported, tmp_path / "model.safetensors")
    empty = run_source(framework, ported.source(), X)
    filled = load(tmp_path / "model.safetensors", into=empty, input_size=SIZE)
    np.testing.assert_array_equal(run(framework, filled, X), run(framework, ported.model, X))
    own = tmp_path / f"model{models_of(framework).FILES[0]}"
    save(filled, own)
    with pytest.raises(ModelFileError, match=r"got input_size= for a framework's own file, expected none"):
        load(own, into=empty, input_size=SIZE)


class Noised(Aligned):
    """A row of numbers comes in, too, as the time does in a diffusion model."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(5, 4)

    def forward(self, x, time):
        return self.aligned(F.silu(self.first(x) + self.time(time)[:, :, None, None]))


@pytest.mark.parametrize("by_name", [False, True])
def test_a_model_for_one_size_with_several_inputs(framework, by_name, tmp_path):
    torch.manual_seed(0)
    model, row = Noised().eval(), np.random.default_rng(1).normal(size=(2, 5)).astype("float32")
    ported = port(model, to=framework, inputs={"time": row, "x": X} if by_name else (X, row))
    assert ported.evidence.same
    assert ported.size == SIZE
    with torch.no_grad():
        expected = model(torch.from_numpy(X), torch.from_numpy(row)).numpy()
    result = results(framework, ported.model, X, row)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    save(ported, tmp_path / "model.safetensors")
    empty = run_source(framework, ported.source(), X, row)
    filled = load(tmp_path / "model.safetensors", into=empty, input_size=SIZE)
    np.testing.assert_array_equal(results(framework, filled, X, row), result)
    if not by_name:
        save(ported, tmp_path / "model.onnx")
        session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "model.onnx")
        given = dict(zip([each.name for each in session.get_inputs()], (X, row), strict=True))
        np.testing.assert_allclose(session.run(None, given)[0], expected, rtol=1e-4, atol=1e-5)


def test_an_image_alone_is_too_little_for_several_inputs():
    (why,) = read(Noised().eval(), X).loose.values()
    assert "it takes 2 arguments (x, time), expected an example for each; inputs= takes a tuple of arrays" in why


def test_a_comparison_on_other_sizes_says_that_a_model_may_be_for_one_alone(framework):
    torch.manual_seed(0)
    model = Padded().eval()
    bare = port(model, to=framework, input_size=SIZE).model
    comparison = compare(model, bare)
    assert comparison.same is False
    assert "give inputs= of that size." in str(comparison).replace("\n", " ")
    assert compare(model, bare, X).same is True
    other = compare(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3))
    assert other.same is False
    assert "inputs=" not in str(other)
