"""PyTorch models whose `forward` is their own: traced, ported whole, and trained on."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from making import port_parts, words
from torch import nn

from convlab import compare, port, port_weights
from convlab.errors import PortError
from convlab.models.adapters import read


class Block(nn.Module):
    """ResNet's (arXiv:1512.03385), whose one ReLU is called twice, and works in place."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.down(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(Block(4, 4), Block(4, 8, 2))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer1(x).mean((2, 3)))


class DenseNet(nn.Module):
    """DenseNet's channels (arXiv:1608.06993), a squeeze-and-excite (arXiv:1709.01507) and numbers between."""

    def __init__(self):
        super().__init__()
        self.grow = nn.ModuleList(nn.Conv2d(4 + 2 * i, 2, 3, padding=1) for i in range(2))
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.last = nn.Linear(8 * 4 * 4, 3)

    def forward(self, x):
        for conv in self.grow:
            x = torch.cat([x, F.hardswish(conv(x))], 1)
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        x = F.avg_pool2d(x / 2 - 0.25, 2)
        return F.log_softmax(self.last(F.dropout(x, 0.5, self.training).view(x.size(0), -1)), dim=-1)


def randomly(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, array in model.state_dict().items():
            if array.is_floating_point():
                array.copy_(torch.rand(array.shape, generator=generator) + (0.5 if "var" in name else -0.5))
    return model.eval()


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.5


MODELS = {"ResNet": (ResNet, (2, 3, 33, 34)), "DenseNet": (DenseNet, (2, 4, 8, 8))}


@pytest.mark.parametrize("name", MODELS)
def test_ported_whole(name):
    make, shape = MODELS[name]
    model, x = randomly(make()), images(*shape)
    ported = port(model, to="torch")
    assert ported.evidence.same
    assert ported.evidence.whole_model_errors[1] == 0
    assert torch.allclose(ported.model(x), model(x), atol=1e-6)
    assert torch.equal(pickle.loads(pickle.dumps(ported.model))(x), ported.model(x))
    assert torch.equal(copy.deepcopy(ported.model)(x), ported.model(x))


POOLED = {
    "squeeze": lambda y: F.adaptive_avg_pool2d(y, 1).squeeze(-1).squeeze(2),
    "squeeze of both": lambda y: torch.squeeze(F.adaptive_max_pool2d(y, 1), dim=(2, 3)),
    "index": lambda y: F.adaptive_avg_pool2d(y.clone(), 1)[..., 0, 0],
    "means": lambda y: y.mean(3).mean(dim=2),
    "mean of tokens": lambda y: y.flatten(2).mean(-1),
    "mean of a view": lambda y: torch.mean(y.view(y.shape[0], y.size(1), -1), dim=2),
    "window": lambda y: F.avg_pool2d(y, y.size()[2:]).flatten(1),
    "sizes": lambda y: F.max_pool2d(y, kernel_size=(y.size(2), y.shape[-1])).flatten(1),
}


@pytest.mark.parametrize("name", POOLED)
def test_ways_to_make_rows_of_images(name):
    model, x = randomly(Pooled(POOLED[name])), images(2, 3, 9, 8)
    ported = port(model, to="torch")
    assert ported.evidence.same
    assert not ported.untouched
    assert torch.allclose(ported.model(x), model(x), atol=1e-6)


class Pooled(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.conv, self.last, self.pool = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), pool

    def forward(self, x):
        return self.last(self.pool(self.conv(x)))


def test_names_come_back():
    """The original takes what the ported model has learnt."""
    model = randomly(ResNet())
    ported = port(model, to="torch").model
    assert ported.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        for parameter in ported.parameters():
            parameter.mul_(0.5)
    other = ResNet().eval()
    other.load_state_dict(ported.state_dict())
    assert torch.allclose(other(images(1, 3, 33, 34)), ported(images(1, 3, 33, 34)), atol=1e-6)


def test_a_step_of_training_is_the_originals():
    model, x = randomly(ResNet()), images(4, 3, 33, 34)
    ported = port(model, to="torch").model
    for each in (model, ported):
        each.train()
        optimizer = torch.optim.SGD(each.parameters(), 0.01)
        each(x).square().sum().backward()
        optimizer.step()
    for name, array in model.state_dict().items():
        # The mean over rows and columns, and so its gradient, is rounded in another order.
        assert torch.allclose(ported.state_dict()[name], array, rtol=1e-4, atol=1e-5), name


def test_a_layer_put_in_anothers_place_is_used():
    ported = port(randomly(ResNet()), to="torch").model
    ported.fc = nn.Linear(8, 2).eval()
    assert ported(images(1, 3, 33, 34)).shape == (1, 2)


def test_names_that_modules_have_for_something_else():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.ModuleDict({"half_": nn.Conv2d(2, 2, 1)})

        def forward(self, x):
            return x + self.a["half_"](x)

    ported = port(Odd().eval(), to="torch")
    assert list(ported.model.state_dict()) == ["a.half_.weight", "a.half_.bias"]


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.scale = scale

    def forward(self, x):
        return x + self.conv(x) * self.scale


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: torch.sqrt(x.abs() * self.own) / torch.exp(self.conv(x).clamp(-1, 0.5)),
        lambda self, x: self.conv(x) ** 2 + torch.square(x) + F.hardtanh(x, -0.5, 0.25) + self.own,
        lambda self, x: F.relu(x) / (self.conv(x).clamp_min(0).permute(0, 2, 3, 1) + self.own).movedim(-1, 1),
    ],
)
def test_operations_on_each_number(forward):
    model = type("Numbers", (Scaled,), {"forward": forward})(1.0)
    model.own = nn.Parameter(torch.tensor(1.5))
    x = images(2, 2, 6, 5)
    ported = port(model, to="torch", inputs=x.numpy())
    assert ported.evidence.same
    assert ported.untouched == {}
    with torch.no_grad():
        assert torch.allclose(ported.model(x), model(x), atol=1e-6)
    assert sum(each.numel() for each in ported.model.parameters()) == 39


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda self, x: torch.einsum("nchw->nhwc", self.conv(x)), r"\(einsum: it takes no tensor\)"),
        (lambda self, x: self.conv(x) if x.sum() > 0 else x, r"\(it can't be traced \(its code decides by"),
        (lambda self, x: F.dropout(self.conv(x)), r"dropout: it drops elements in inference, too"),
        (lambda self, x: x.mean(1) * self.conv(x), r"mean: it reduces the axes 1, expected \(2, 3\)"),
        (lambda self, x: torch.cat([x, self.conv(x)], 2), "cat: it concatenates along axis 2, expected 1"),
        (lambda self, x: self.conv(x) * self.own, "own, which hasn't one number for each channel"),
        (lambda self, x: self.conv(x, x), r"\(conv, called with more than one tensor\)"),
        (lambda self, x: self.conv(x, output_size=x.shape[2:]), r"\(conv, called with output_size\)"),
        (lambda self, x: (self.conv(x), None), "its result 1 isn't a tensor that is computed from the image"),
        (lambda self, x: (x, [self.conv(x), None]), r"its result '\[1\]\[1\]' isn't a tensor that is computed"),
        (lambda self, x: {"a": x, "b": {"c/d": self.conv(x)}}, r"its results are called \['c/d'\], expected strings"),
        (lambda self, x: {"a": self.conv(x), "b": []}, "it gives nothing for 'b'"),
        (lambda self, x: {0: x, 1: self.conv(x)}, r"its results are called \[0, 1\], expected strings"),
        (lambda self, x: (x, self.conv(x), self.own), "its result 2 isn't a tensor that is computed"),
        (lambda self, x: self.conv(x).reshape(x.shape[0], 2, -1), "the model's result is tokens"),
        (lambda self, x: self.conv(x).permute(0, 2, 3, 1), "permute: the model's result is images NHWC"),
        (
            lambda self, x: self.conv(x).reshape(x.shape[0], 3, -1),
            r"reshape with numbers from the image's size: it gives other axes than \(N, -1\) or",
        ),
    ],
)
def test_what_isnt_known_is_named(forward, words):
    model = type("Odd", (Scaled,), {"forward": forward})(1.0)
    model.own = nn.Parameter(torch.ones(8, 8))
    ported = port_parts(model, words, to="torch")
    assert list(ported.layers) == ["conv"]


def test_two_models_that_differ_between_their_layers():
    a, b = Scaled(1.0).eval(), Scaled(0.5).eval()
    b.load_state_dict(a.state_dict())
    assert compare(a, copy.deepcopy(a)).same
    comparison = compare(a, b)
    assert comparison.same is False
    assert comparison.first.differences == {"scale": "scale is 1.0 in the first, 0.5 in the second"}
    with pytest.raises(PortError, match=r"[Ss]cale is 1.0 in the first, 0.5 in the second"):
        port_weights(a.state_dict(), a, b)


def test_several_results_of_code_that_isnt_read():
    """Whole models are compared result by result."""

    def forward(self, x):
        return self.conv(x), torch.einsum("nchw->nchw", self.conv(x)) * self.factor, torch.einsum("nchw->nc", x)

    first, apart = (type("Odd", (Scaled,), {"forward": forward})(1.0).eval() for _ in range(2))
    fewer = type("Odd", (Scaled,), {"forward": lambda self, x: forward(self, x)[:2]})(1.0).eval()
    for other in (apart, fewer):
        other.load_state_dict(first.state_dict())
    first.factor, apart.factor, fewer.factor = 1.0, 1.5, 1.0
    assert compare(first, copy.deepcopy(first)).whole_results_compared
    comparison = compare(first, apart)
    assert comparison.same is False
    assert "result 2 of 3 differs by up to" in words(comparison)
    comparison = compare(first, fewer)
    assert comparison.same is False
    assert "the first model's results have shapes" in words(comparison)


def test_paths_of_operations_name_whose_code_they_are_of():
    paths = [part.path for part in read(ResNet().eval()).parts]
    assert paths[:4] == ["conv1", "bn1", "relu", "max_pool2d"]
    assert "layer1.0.add" in paths
    assert np.unique([part.value for part in read(ResNet().eval()).parts]).size == len(paths)


class Convolved(nn.Module):
    """A convolution and the activation that all of its kind share, as YOLO's code has it."""

    activation = nn.SiLU()

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(2, 2, 1), self.activation

    def forward(self, x):
        return self.act(self.conv(x))


def test_one_activation_of_many_modules_is_called_like_that_of_each():
    model = nn.Sequential(Convolved(), nn.Sequential(Convolved(), Convolved())).eval()
    paths = ["0.conv", "0.act", "1.0.conv", "1.0.act", "1.1.conv", "1.1.act"]
    assert [part.path for part in read(model).parts] == paths
