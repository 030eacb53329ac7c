"""PyTorch models whose code computes with their images' sizes, ported for images of one size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convlab
from convlab import port
from convlab.errors import ModelError
from convlab.models.adapters import read

SIZE = (37, 26)
X = torch.from_numpy(np.random.default_rng(5).normal(size=(3, 4, *SIZE)).astype("float32"))


class Same(nn.Module):
    """A convolution that pads as TensorFlow does."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(4, 4, 3, stride=stride)

    def forward(self, x):
        down, across = (
            max((math.ceil(size / self.stride) - 1) * self.stride + 3 - size, 0) for size in (x.shape[2], x.shape[3])
        )
        return self.conv(F.pad(x, [across // 2, across - across // 2, down // 2, down - down // 2]))


class PaddedToMultiple(nn.Module):
    """It pads images to a multiple of 8, halves and doubles them, and cuts the border off."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)

    def forward(self, x):
        height, width = x.shape[-2:]
        if height % 8 or width % 8:
            x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
        y = self.up(F.relu(self.down(x)))
        assert y.shape == x.shape
        return y[:, :, :height, :width]


class Even(nn.Module):
    """It cuts images to even sizes, and resizes what it makes of them to the images' size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 2, stride=2)

    def forward(self, x):
        n, channels, height, width = x.size()
        y = self.conv(x[:, :, : height // 2 * 2, : width // 2 * 2])
        y = F.interpolate(y, size=(height, width), mode="bilinear", align_corners=False)
        return y.view(n, channels, height, width) + x


class Pooled(nn.Module):
    """It pools by a window as large as the image, and flattens by the numbers of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        y = self.conv(x)
        y = F.avg_pool2d(y, (y.size(2), y.size(3)))
        return self.head(y.view(y.size(0), 6 * y.shape[2] * y.shape[3]))


class Placed(nn.Module):
    """It adds where rows and columns are, and resizes by fractions that give whole rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        y = y + torch.arange(y.shape[2])[None, None, :, None] + torch.arange(4)[:, None, None] / 8
        y = (y.movedim(1, -1) + torch.arange(y.shape[3])[:, None] / 16).movedim(-1, 1)[:, :, :36]
        larger = F.interpolate(y, scale_factor=1.5, mode="bilinear")
        return larger + F.interpolate(F.interpolate(y, scale_factor=0.5), scale_factor=3, mode="nearest")


MODELS = {
    "placed": Placed,
    "same": lambda: nn.Sequential(Same(2), nn.ReLU(), Same(3)),
    "padded": PaddedToMultiple,
    "even": Even,
    "pooled": Pooled,
}


def shaken(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for array in model.parameters():
        array.data.uniform_(-0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_a_port_for_one_size_computes_the_same(name, dtype) -> None:
    model = shaken(MODELS[name]()).to(getattr(torch, dtype))
    images = X.to(getattr(torch, dtype))
    attributes = sorted(vars(model))
    ported = port(model, to="torch", input_size=SIZE)
    assert ported.evidence.same
    assert not ported.untouched
    assert sorted(vars(model)) == attributes
    with torch.no_grad():
        expected = model(images)
        assert (ported.model(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_evidence_names_the_size() -> None:
    model = shaken(PaddedToMultiple())
    ported = port(model, to="torch", input_size=SIZE)
    assert "holds for images of 37x26 pixels alone" in " ".join(str(ported.evidence).split())
    assert read(model, X.numpy()).size == SIZE


def test_what_is_the_same_for_all_sizes_is_read_for_all() -> None:
    model = shaken(nn.Sequential(nn.Conv2d(4, 4, 3), Same(1)))
    assert read(nn.Sequential(model[0], nn.Flatten(1).eval()), X.numpy()).size is None
    assert read(shaken(Even()), X[:, :, :36].numpy()).size is None


class Deep(nn.Module):
    """Boxes at the pixels of an image that was halved seven times: small images have one such pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(*(nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(7)))
        self.head = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x):
        y = self.head(self.down(x))
        n, _, height, width = y.shape
        return y.view(n, -1, 5, height, width).permute(0, 3, 4, 1, 2).reshape(n, -1, 5)


def test_what_deep_layers_see_is_no_constant() -> None:
    torch.manual_seed(0)
    model = Deep().eval()
    ported = port(model, to="torch")
    assert (ported.evidence.same, ported.size) == (True, None)
    for size in ((65, 68), (300, 400)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(ported.model(x), model(x))


def test_images_given_for_a_comparison_tell_the_size() -> None:
    model, other = shaken(PaddedToMultiple()), shaken(PaddedToMultiple())
    assert convlab.compare(model, other, inputs=X.numpy()).same
    other.up.weight.data[0, 0, 0, 0] += 1
    comparison = convlab.compare(model, other, inputs=X.numpy())
    assert comparison.same is False
    assert comparison.first.a == "up"


class ByValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.conv(x) if x.mean() > 0 else x


def test_code_that_decides_by_numbers_stays_refused() -> None:
    with pytest.warns(convlab.errors.PartialPortWarning, match="can't be traced"):
        port(shaken(ByValues()), to="torch", input_size=SIZE)


class WithBatch(nn.Module):
    """The images' number is no constant of a size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return y * (x.shape[0] + x.shape[2] % 4)


def test_the_number_of_images_is_no_constant() -> None:
    with pytest.warns(convlab.errors.PartialPortWarning, match="mul"):
        port(shaken(WithBatch()), to="torch", input_size=SIZE)


def test_another_size_than_a_model_takes_is_refused() -> None:
    model = nn.Sequential(Same(2), nn.Flatten(), nn.Linear(4 * 19 * 13, 2))
    with pytest.raises(ModelError, match="images of 8x8 pixels don't go through all layers"):
        port(shaken(model), to="torch", input_size=(8, 8))


def test_what_is_for_one_size_says_so(tmp_path) -> None:
    """Its source, its ONNX file, and the comparison with the original, which can't be read without the size."""
    model = shaken(PaddedToMultiple())
    ported = port(model, to="torch", input_size=SIZE)
    assert ported.size == SIZE
    assert ported.source().startswith("# For images of 37x26 pixels alone.\n")
    comparison = convlab.compare(model, ported)
    assert comparison.same
    assert comparison.size == SIZE
    convlab.save(ported, tmp_path / "model.safetensors")
    loaded = convlab.load(tmp_path / "model.safetensors", backend="torch")
    with torch.no_grad():
        assert torch.equal(loaded(X), ported.model(X))
