"""PyTorch's models of sequences and volumes whose code is their own, and what of them isn't read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convlab import port
from convlab.errors import ModelError, PartialPortWarning
from convlab.models.adapters import read


class Temporal(nn.Module):
    """A causal network: borders and crops, a norm and a dense layer of the last axis, gates, arrays of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 6, 3, padding=4, dilation=2)
        self.second = nn.Conv1d(6, 6, 3)
        self.down = nn.Conv1d(1, 6, 1)
        self.norm, self.dense = nn.LayerNorm(6), nn.Linear(6, 4)
        self.kernel, self.scale = nn.Parameter(torch.randn(4, 2, 5) / 3), nn.Parameter(torch.rand(4, 1))
        self.groups = nn.GroupNorm(2, 4)

    def forward(self, x):
        y = F.gelu(self.first(x)[:, :, :-4])
        y = self.second(F.pad(y, (2, 0))) + self.down(x)
        y = self.dense(self.norm(y.transpose(1, 2))).transpose(1, 2)
        y = self.groups(F.conv1d(y, self.kernel, stride=2, groups=2) * self.scale)
        a, b = y.chunk(2, dim=1)
        y = torch.cat([a * torch.sigmoid(b), b], dim=1)
        return F.max_pool1d(y, 2).mean(-1)


class Volumes(nn.Module):
    """Excitation of the channels by a dense layer, in a block with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(2, 4, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(4)
        self.excite, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        share = torch.sigmoid(self.excite(x.mean(dim=(2, 3, 4))))
        x = x + x * share[:, :, None, None, None]
        x = F.avg_pool3d(x, (1, 2, 2))
        return self.last(F.adaptive_avg_pool3d(x, 1).flatten(1))


def shaken(model):
    torch.manual_seed(0)
    for array in model.state_dict().values():
        if array.is_floating_point():
            array.uniform_(0.1, 0.9)
    return model.eval()


@pytest.mark.parametrize(("kind", "shape"), [(Temporal, (2, 1, 31)), (Volumes, (2, 2, 3, 8, 7))])
def test_code_of_its_own(kind, shape) -> None:
    model, x = shaken(kind()), torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype("float32"))
    ported = port(model, to="torch")
    assert ported.evidence.same
    assert not ported.untouched
    with torch.no_grad():
        expected = model(x)
        assert (ported.model(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    names = {name for name in model.state_dict() if "kernel" not in name and "scale" not in name}
    assert names <= {*ported.model.state_dict()}


LAYERS = {
    "circular": nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"),
    "same": nn.Conv1d(2, 4, 4, padding="same", padding_mode="reflect"),
    "ceil": nn.MaxPool1d(3, 2, 1, ceil_mode=True),
    "not counted": nn.AvgPool3d((3, 2, 1), padding=(1, 1, 0), count_include_pad=False),
    "volume": nn.Conv3d(2, 2, (1, 3, 3), padding=(0, 1, 1), padding_mode="replicate", groups=2),
    "rows": nn.BatchNorm1d(2),
    "nearest": nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv1d(2, 2, 3)),
    "linear": nn.Upsample(scale_factor=3, mode="linear", align_corners=True),
    "transposed": nn.ConvTranspose1d(2, 4, 4, stride=3, padding=1, output_padding=2, groups=2),
    "instance": nn.Sequential(nn.Conv1d(2, 2, 1), nn.InstanceNorm1d(2, affine=True)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name) -> None:
    model = shaken(LAYERS[name])
    rank = {"volume": 3, "not counted": 3, "rows": 0}.get(name, 1)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 2, *(8,) * rank)).astype("float32"))
    ported = port(model, to="torch")
    with torch.no_grad():
        assert torch.allclose(ported.model(x), model(x), atol=1e-6)


REFUSED = {
    "Upsample: it is for images": nn.Upsample(size=(8, 8)),
    "Conv2d: it is for images, in a model of sequences": nn.Conv2d(4, 4, 3),
    "Linear: it is applied to each row of pixels": nn.Linear(7, 5),
    "BatchNorm2d: it normalises sequences": nn.BatchNorm2d(4),
    "Softmax: without dim": nn.Softmax(),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_for_others_is_refused_by_name(why) -> None:
    with pytest.warns(PartialPortWarning, match=why):
        port(nn.Sequential(nn.Conv1d(2, 4, 3), REFUSED[why]), to="torch")


def test_a_mean_over_some_axes_is_no_global_pooling() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3)

        def forward(self, x):
            return self.conv(x).mean(2)

    assert "it reduces the axes 2, expected (2, 3)" in str(read(Rows()).loose)


def test_sizes() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(10, 2)).eval()
    assert port(model, to="torch", input_size=7).evidence.same
    assert port(model, to="torch", inputs=np.ones((2, 1, 7))).evidence.same
    with pytest.raises(ModelError):
        port(model, to="torch", input_size=(2,))
