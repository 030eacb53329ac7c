"""Models that PyTorch itself exported to ONNX come back with their names, their weights and their results."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convlab import load, save
from convlab.errors import ModelFileError


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Conv2d(channels, 2, 1), nn.SiLU(), nn.Conv2d(2, channels, 1)

    def forward(self, x):
        return x * F.hardsigmoid(self.fc2(self.act(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.se = Squeeze(outputs)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(self.downsample(x) + self.se(y))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.maxpool = nn.Conv2d(3, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(4, 6, 1), Block(6, 6, 2))
        self.acts = nn.Sequential(nn.GELU(), nn.GELU("tanh"), nn.Mish(), nn.Hardswish(), nn.SELU(), nn.ELU(0.5))
        self.pool = nn.AvgPool2d(2, 1, 1, count_include_pad=False)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        x = self.layer1(self.maxpool(self.conv1(x)))
        x = torch.cat([x, self.acts(x) * 0.5 + 1], 1)
        x = self.pool(F.leaky_relu(F.relu6(x), 0.2)).mean((2, 3))
        return F.log_softmax(self.fc(x.view(x.size(0), -1)), dim=1)


def exported(model, path, x, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The exporter that needs no further package is the old one.
        torch.onnx.export(model, (x,), path, dynamo=False, input_names=["x"], **options)


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
    return net


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("sizes", ["one", "any"])
def test_what_pytorch_exports(net, opset, sizes, tmp_path):
    axes = {"x": {0: "n", 2: "h", 3: "w"}} if sizes == "any" else None
    x = torch.randn(1, 3, 33, 34)
    exported(net, tmp_path / "model.onnx", x, opset_version=opset, dynamic_axes=axes)
    again = load(tmp_path / "model.onnx", backend="torch")
    torch.testing.assert_close(again(x), net(x), rtol=0, atol=1e-5)
    if sizes == "any":
        x = torch.randn(2, 3, 41, 28)
        torch.testing.assert_close(again(x), net(x), rtol=0, atol=1e-5)


def test_the_weights_have_their_names(net, tmp_path):
    """Where the exporter leaves batch norms as they are, the state dict is that of the original."""
    preserve = torch.onnx.TrainingMode.PRESERVE
    exported(net, tmp_path / "model.onnx", torch.randn(1, 3, 33, 34), training=preserve, do_constant_folding=False)
    again = load(tmp_path / "model.onnx", backend="torch")
    theirs = {name: array for name, array in net.state_dict().items() if "num_batches" not in name}
    mine = {name: array for name, array in again.state_dict().items() if "num_batches" not in name}
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(array, theirs[name]) for name, array in mine.items())


def test_flattened_pixels(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 5 * 4, 7), nn.Tanh()
    )
    x = torch.randn(1, 1, 12, 10)
    exported(net.eval(), tmp_path / "model.onnx", x)
    torch.testing.assert_close(load(tmp_path / "model.onnx", backend="torch")(x), net(x), rtol=0, atol=1e-6)


class Channels(nn.Module):
    """A group norm, a channel shuffle as ShuffleNet writes it, and halves of the channels."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8, eps=1e-3)
        self.last = nn.Sequential(nn.Conv2d(8, 8, 1), nn.PixelShuffle(2), nn.InstanceNorm2d(2, affine=True))

    def forward(self, x):
        x = self.norm(self.conv(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        a, b = x.chunk(2, dim=1)
        return self.last(torch.cat([b, a * x[:, 4:]], 1))


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("sizes", ["one", "any"])
def test_what_pytorch_spells_out(opset, sizes, tmp_path):
    torch.manual_seed(0)
    net = Channels().eval()
    nn.init.normal_(net.norm.weight)
    nn.init.normal_(net.norm.bias)
    axes = {"x": {0: "n", 2: "h", 3: "w"}} if sizes == "any" else None
    x = torch.randn(1, 3, 11, 12)
    exported(net, tmp_path / "model.onnx", x, opset_version=opset, dynamic_axes=axes)
    again = load(tmp_path / "model.onnx", backend="torch")
    if sizes == "any":
        x = torch.randn(2, 3, 9, 7)
    torch.testing.assert_close(again(x), net(x), rtol=0, atol=1e-5)
    assert torch.equal(again.get_submodule("norm").weight, net.norm.weight)


class WholeImages(nn.Module):
    """Attention of pixels, shares of branches, and a mean that is repeated for each pixel."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 4, 1) for _ in range(3))
        self.dense, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        first, second, third = self.one(x), self.two(x), self.three(x)
        images = first, F.max_pool2d(second, 2), F.max_pool2d(third, 2)
        q, k, v = (each.reshape(len(x), 2, 2, -1).transpose(2, 3) for each in images)
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(first.shape)
        rows = (first + second).mean((2, 3))
        shares = torch.stack([self.dense(rows), self.other(rows)], 1).softmax(1)[..., None, None]
        y = y + (torch.stack([first, second], 1) * shares).sum(1)
        return torch.cat([y, F.interpolate(F.adaptive_avg_pool2d(third, 1), size=x.shape[2:])], 1)


def test_attention_shares_and_repeated_pixels_are_written(tmp_path):
    torch.manual_seed(0)
    model, path = WholeImages().eval(), tmp_path / "model.onnx"
    save(model, path)
    x = torch.rand(2, 3, 6, 8)
    with torch.no_grad():
        expected = model(x).numpy()
    (result,) = onnxruntime.InferenceSession(path).run(None, {"X": x.numpy()})
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    with pytest.raises(ModelFileError, match="Reshape"):
        load(path, backend="torch")


def test_a_flattening_before_all_else_is_written(tmp_path):
    torch.manual_seed(0)
    model, path = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 3)).eval(), tmp_path / "m.onnx"
    save(model, path)
    x = torch.rand(2, 3, 4, 4)
    with torch.no_grad():
        expected = model(x).numpy()
        again = load(path, backend="torch")(x).numpy()
    (result,) = onnxruntime.InferenceSession(path).run(None, {"X": x.numpy()})
    for each in (result, again):
        np.testing.assert_allclose(each, expected, rtol=0, atol=1e-6)
