"""PyTorch's norms, transposed convolutions and upsampling, and code that permutes axes or has arrays of its own."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convlab import compare, port
from convlab.errors import PartialPortWarning
from convlab.models.adapters import read

X = torch.from_numpy(np.random.default_rng(5).normal(size=(2, 4, 9, 8)).astype("float32"))


def shaken(model):
    """The model in inference, with numbers in all parameters and statistics that aren't those of a new one."""
    torch.manual_seed(0)
    for array in model.state_dict().values():
        if array.is_floating_point():
            array.uniform_(0.5, 1.5)
    return model.eval()


def check(model) -> None:
    """What is ported computes the same, without convlab."""
    shaken(model)
    ported = port(model, to="torch")
    assert ported.evidence.same
    assert not ported.untouched
    with torch.no_grad():
        expected = model(X)
        assert (ported.model(X) - expected).abs().max() <= 1e-5 * expected.abs().max()


NATIVES = {
    "group": nn.GroupNorm(2, 4, eps=1e-2),
    "group without numbers": nn.GroupNorm(2, 4, affine=False),
    "instance": nn.InstanceNorm2d(4),
    "instance with numbers": nn.InstanceNorm2d(4, affine=True, eps=1e-3),
    "instance with statistics": nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False),
    "dilated": nn.ConvTranspose2d(4, 3, (3, 2), stride=(1, 2), dilation=(2, 1), padding=(2, 0)),
    "nearest": nn.Upsample(scale_factor=2),
    "bilinear": nn.Upsample(scale_factor=(2.0, 3.0), mode="bilinear"),
    "aligned": nn.UpsamplingBilinear2d(scale_factor=2),
    "a size": nn.Upsample(size=(20, 6)),
    "pixels": nn.PixelShuffle(2),
    "channels": nn.ChannelShuffle(2),
    "crop": nn.ZeroPad2d((-1, -2, 0, -1)),
    "crop and border": nn.ConstantPad2d((-1, 2, 0, -1), 0.5),
}


@pytest.mark.parametrize("name", NATIVES)
def test_layers(name) -> None:
    check(nn.Sequential(NATIVES[name]))


REFUSED = {
    "a fraction": (nn.Upsample(scale_factor=1.5), "scale_factor"),
    "statistics of the batch": (nn.BatchNorm2d(4, track_running_stats=False), "batch. Hint: train it with"),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), "bicubic"),
    "both": (nn.ReflectionPad2d((1, -1, 0, 0)), "pads and crops"),
    "whole images": (nn.LayerNorm((4, 9, 8)), "LayerNorm"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name) -> None:
    layer, why = REFUSED[name]
    with pytest.warns(PartialPortWarning, match=why):
        port(nn.Sequential(nn.Conv2d(4, 4, 1), layer), to="torch")


class Block(nn.Module):
    """ConvNeXt's block, as torchvision writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 7, padding=3, groups=4)
        self.norm = nn.LayerNorm(4, eps=1e-6)
        self.wide, self.narrow = nn.Linear(4, 16), nn.Linear(16, 4)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        y = torch.permute(self.conv(x), (0, 2, 3, 1))
        y = self.narrow(F.gelu(self.wide(self.norm(y)))).permute(0, 3, 1, 2)
        return x + self.scale * y


class Norm(nn.LayerNorm):
    """Of the channels of images NCHW."""

    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Unit(nn.Module):
    """ShuffleNet's unit, as torchvision writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        x = torch.cat((a, self.conv(b)), dim=1)
        n, channels, rows, columns = x.size()
        x = x.view(n, 2, channels // 2, rows, columns)
        return torch.transpose(x, 1, 2).contiguous().view(n, channels, rows, columns)


class Normalised(nn.Module):
    """A model that takes its images' mean away itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(1, 4, 1, 1))
        self.register_buffer("spread", torch.ones(4, 1, 1))
        self.conv = nn.Conv2d(4, 3, 3)

    def forward(self, x):
        return F.interpolate(self.conv((x - self.mean) / self.spread), scale_factor=2)


class UNet(nn.Module):
    """The decoder's images are padded and resized to the encoder's, as people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 6, 2, stride=2)
        self.last = nn.Conv2d(18, 2, 1)

    def forward(self, x):
        before = F.relu(self.down(x))
        deep = F.relu(self.deep(F.max_pool2d(before, 2)))
        up = self.up(deep)
        rows, columns = before.size(2) - up.size(2), before.shape[3] - up.shape[3]
        up = F.pad(up, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        larger = F.interpolate(deep, size=before.shape[-2:], mode="bilinear", align_corners=False)
        return self.last(torch.cat([before, up, larger], dim=1))


class Head(nn.Module):
    """It tells the number of pixels itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(4, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.conv(x), 1)
        n, channels, rows, columns = x.shape
        return self.fc(x.reshape(n, channels * rows * columns))


class Mean(nn.Module):
    """ConvNeXt's head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(4, 6, 1), nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x).mean([-2, -1])))


class Squeeze(nn.Module):
    """A scale for each channel, as people spell it."""

    def __init__(self, spelling) -> None:
        super().__init__()
        self.conv, self.fc, self.spelling = nn.Conv2d(4, 6, 1), nn.Linear(6, 6), spelling

    def forward(self, x):
        x = self.conv(x)
        y = torch.sigmoid(self.fc(x.mean((2, 3))))
        return x * self.spelling(y, x)


SPELLINGS = {
    "none": lambda y, x: y[:, :, None, None],
    "unsqueeze": lambda y, x: y.unsqueeze(-1).unsqueeze(-1),
    "axes": lambda y, x: torch.unsqueeze(torch.unsqueeze(y, 2), 3),
    "view": lambda y, x: y.view(x.size(0), x.size(1), 1, 1),
    "expand": lambda y, x: y[:, :, None, None].expand_as(x),
    "one less": lambda y, x: 1 - y[:, :, None, None],
    "negative": lambda y, x: -y[:, :, None, None],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_of_squeeze_and_excite(name) -> None:
    check(Squeeze(SPELLINGS[name]))


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


class Generator(nn.Module):
    """Rows as images, by PyTorch's order of the numbers and by NHWC."""

    def __init__(self, code):
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 24, bias=False), nn.BatchNorm1d(24)
        self.conv, self.code = nn.Conv2d(4, 4, 3, padding=1), code

    def forward(self, x):
        rows = F.relu(self.norm(self.fc(x.mean((2, 3)))))
        return self.conv(self.code(rows))


class Denoiser(nn.Sequential):
    """Zhang et al., arXiv:1608.03981: the layers compute the noise."""

    def forward(self, x):
        return x - super().forward(x)


IMAGES = {
    "view": lambda x: x.view(-1, 4, 3, 2),
    "reshape": lambda x: x.reshape(x.size(0), 4, 3, 2),
    "unflatten": lambda x: torch.unflatten(x, 1, (4, 3, 2)),
    "pixels": lambda x: x.view(-1, 3, 2, 4).permute(0, 3, 1, 2),
}
MODELS = {
    **{name: partial(Generator, code) for name, code in IMAGES.items()},
    "denoiser": lambda: Denoiser(nn.Conv2d(4, 4, 3, padding=1), nn.Dropout2d(), nn.ReLU(), nn.Conv2d(4, 4, 1)),
    "block": Block,
    "norm": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), Norm(4, eps=1e-3)),
    "unit": Unit,
    "normalised": Normalised,
    "head": Head,
    "mean": Mean,
    "function": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), Swish()),
    "rows": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_code_of_ones_own(name) -> None:
    check(MODELS[name]())


class Sliced(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index, self.conv = index, nn.Conv2d(4, 3, 3)

    def forward(self, x):
        return self.conv(x)[self.index]


INDICES = {
    "all": (slice(None), slice(None), slice(1, None), slice(2, -3)),
    "last two": (..., slice(None, -1), slice(None)),
    "each second": (..., slice(1, None, 2), slice(None)),
}


@pytest.mark.parametrize("name", INDICES)
def test_slices_of_rows_and_columns(name) -> None:
    check(Sliced(INDICES[name]))


def test_slices_that_depend_on_the_size_are_refused() -> None:
    with pytest.warns(PartialPortWarning, match="getitem"):
        port(shaken(Sliced((..., slice(0, 4), slice(None)))), to="torch")


class Regrouped(nn.Module):
    def forward(self, x):
        return x.view(-1, 2, 12, 12)


def test_images_as_other_images_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), Regrouped())
    with pytest.warns(PartialPortWarning, match="it is given images, expected rows"):
        port(model, to="torch")


def test_sizes_are_computed_from_images() -> None:
    """For images of an even size; a border of an odd one would depend on it."""
    model = shaken(UNet())
    ported = port(model, to="torch")
    assert ported.evidence.same
    kinds = [part.layer.kind for part in read(model).parts]
    assert kinds.count("upsample") == 1
    x = X[:, :, :8]
    with torch.no_grad():
        assert (ported.model(x) - model(x)).abs().max() <= 1e-5 * model(x).abs().max()


class Segmenting(nn.Module):
    """Its one result is in a dictionary, as torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 2, 3, stride=2, padding=1)

    def forward(self, x):
        result = {}
        result["out"] = F.interpolate(self.conv(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return result


def test_a_result_in_a_dictionary() -> None:
    model = shaken(Segmenting())
    ported = port(model, to="torch")
    assert ported.evidence.same
    assert read(model).multiple == 2
    assert "images whose rows and columns are multiples of 2" in " ".join(str(ported.evidence).split())
    x = X[:, :, :8]
    with torch.no_grad():
        assert (ported.model(x) - model(x)["out"]).abs().max() <= 1e-5
    at_size = port(model, to="torch", input_size=(9, 8))
    with torch.no_grad():
        assert (at_size.model(X) - model(X)["out"]).abs().max() <= 1e-5


def test_names_and_training_survive() -> None:
    model = shaken(Block())
    parts = {part.path: part.layer.kind for part in read(model).parts}
    assert [parts[path] for path in ("scale", "wide", "norm")] == ["channel_affine", "conv2d", "layer_norm"]
    again = port(model, to="torch").model
    assert {name for name, _ in again.named_parameters()} >= {"conv.weight", "norm.bias", "wide.weight"}
    assert again.scale.weight.requires_grad
    assert again.scale.bias is None
    normalised = port(shaken(Normalised()), to="torch").model
    assert {name for name, _ in normalised.named_buffers()} == {"mean.bias", "spread.weight"}


class Sharing(nn.Module):
    """It permutes axes to what no layer is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.conv(x.permute(0, 1, 3, 2))


class OverNHWC(nn.Module):
    """It pools images NHWC as if they were NCHW."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return F.max_pool2d(self.conv(x).permute(0, 2, 3, 1), 2)


def test_what_the_code_doesnt_use_is_told_and_left() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.auxiliary = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x):
            return self.conv(x)

    with pytest.warns(PartialPortWarning, match="all that inference needs was ported"):
        ported = port(shaken(Auxiliary()), to="torch")
    assert ported.evidence.same
    assert ported.untouched == {"auxiliary": "a Conv2d that the model's code doesn't call"}
    assert ported.model(X).shape == (2, 2, 9, 8)


def test_a_size_as_a_number_is_refused() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.conv(x) * x.size(2)

    with pytest.warns(PartialPortWarning, match="mul"):
        port(Sized(), to="torch")


@pytest.mark.parametrize(("kind", "why"), [(Sharing, r"permutation of the axes to \(0, 1, 3, 2\)"), (OverNHWC, "NHWC")])
def test_other_axes_are_refused(kind, why) -> None:
    with pytest.warns(PartialPortWarning, match=why):
        port(kind(), to="torch")


class Exploding(nn.Module):
    """Its numbers grow beyond the largest of float32, and those of its reference beyond float64's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.last(torch.exp(self.second(torch.exp(self.first(x) * 40))))


def test_numbers_that_overflow_are_no_difference() -> None:
    torch.manual_seed(0)
    model = Exploding().eval()
    assert port(model, to="torch").evidence.same
    other = Exploding().eval()
    other.load_state_dict(model.state_dict())
    other.last.bias.data[0] += 0.5
    assert compare(model, other).first.a == "last"
