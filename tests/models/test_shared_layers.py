"""A layer that a model calls several times stays one layer, in the ported model, in its source and in files."""

from __future__ import annotations

import functools
import json
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from making import run
from safetensors.numpy import load_file
from sources import check, run_source
from torch import nn

from convlab import load, port, save
from convlab.errors import ModelFileError
from convlab.models.adapters import models_of, read
from convlab.models.files.neutral import packed


class Pyramid(nn.Module):
    """The heads of a detector, called for each level of a pyramid (arXiv:1708.02002), with a scale for each level."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)])
        self.lateral = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(6, 4, 1)])
        self.tower = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())
        self.boxes, self.places = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.scales = nn.ParameterList([nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(1.5))])

    def forward(self, x):
        low = F.relu(self.down[0](x))
        high = F.relu(self.down[1](low))
        deep = self.lateral[1](high)
        levels = self.lateral[0](low) + F.interpolate(deep, scale_factor=2.0), deep
        rows = []
        for level, scale in zip(levels, self.scales, strict=True):
            y = self.tower(level)
            y = self.boxes(y) + self.places(y) * scale
            rows.append(y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, 6))
        return torch.cat(rows, dim=1)


class StartAndEnd(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch, self.between = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.branch(torch.tanh(self.between(F.relu(self.branch(x)))))


class Adjacent(nn.Module):
    """Towers whose calls follow one another, of which the second begins with a function."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.second = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1))

    def forward(self, x):
        twice = self.first(self.first(x))
        return self.second(twice) + self.second(x)


def in_sequential():
    shared = nn.Conv2d(3, 3, 3, padding=1)
    return nn.Sequential(shared, nn.ReLU(), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), shared)


MODELS = {"pyramid": Pyramid, "start_and_end": StartAndEnd, "adjacent": Adjacent, "in_sequential": in_sequential}
X = np.random.default_rng(0).normal(size=(2, 3, 16, 12)).astype("float32")


def made(kind):
    torch.manual_seed(0)
    return MODELS[kind]().eval()


@functools.cache
def ported(kind, framework):
    return port(made(kind), to=framework)


@pytest.mark.parametrize("kind", MODELS)
def test_a_source_has_the_bits_of_the_ported_model(framework, kind, tmp_path):
    check(framework, ported(kind, framework), tmp_path, X)


@pytest.mark.parametrize("kind", MODELS)
def test_the_new_model_has_as_many_weights(framework, kind):
    expected = sum(parameter.numel() for parameter in made(kind).parameters())
    assert weights(framework, ported(kind, framework).model) == expected
    assert weights(framework, run_source(framework, ported(kind, framework).source(), X)) == expected


def weights(name, model):
    """How many numbers of a model are trained."""
    if name == "torch":
        return sum(parameter.numel() for parameter in model.parameters())
    if name == "tensorflow":
        return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    if name == "mxnet":
        parameters = model.collect_params().values()
        return sum(int(np.prod(each.shape)) for each in parameters if each.grad_req != "null")
    import jax

    if name == "jax":
        return sum(each.size for each in jax.tree.leaves(model.unbind()[1]["params"]))
    from flax import nnx

    return sum(each.size for each in jax.tree.leaves(nnx.state(model, nnx.Param)))


TOWER = {
    "torch": """        self.tower = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Tanh(),
        )
""",
    "mxnet": """        self.tower = sequential(
            nn.Conv2D(4, 3, padding=1, in_channels=4),
            nn.Activation("relu"),
            nn.Conv2D(4, 3, padding=1, in_channels=4),
            nn.Activation("tanh"),
        )
""",
    "jax.nnx": """        self.tower = nnx.Sequential(
            nnx.Conv(4, 4, (3, 3), padding=1, rngs=rngs),
            nnx.relu,
            nnx.Conv(4, 4, (3, 3), padding=1, rngs=rngs),
            nnx.tanh,
        )
""",
    "jax": """        tower_0 = nn.Conv(4, (3, 3), padding=1, name="tower.0")
""",
    "tensorflow": """    tower_0 = layers.Conv2D(4, 3, padding="same", name="tower.0")
""",
}


def test_a_block_is_written_once_and_called_for_each_level(framework):
    text = ported("pyramid", framework).source()
    called = "tower_0(" if framework in ("jax", "tensorflow") else "self.tower("
    assert TOWER[framework] in text
    assert text.count(called) == 2


def test_other_weights_for_a_second_call_are_refused(framework, tmp_path):
    model = made("start_and_end")
    apart = nn.Sequential(model.branch, nn.ReLU(), model.between, nn.Tanh(), nn.Conv2d(3, 3, 3, padding=1))
    save(apart, path := tmp_path / "apart.safetensors")
    with pytest.raises(ModelFileError, match="other weights for each call of 'branch', expected the same"):
        load(path, into=ported("start_and_end", framework))


def test_an_own_models_source_has_its_shared_layer(framework):
    """Also of a model that is read again."""
    again = models_of(framework).source(read(ported("start_and_end", framework).model).parts, None)
    assert again == ported("start_and_end", framework).source()


class Siamese(nn.Module):
    """A tower with functions between its layers, called for two images."""

    def __init__(self):
        super().__init__()

        class Tower(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

            def forward(self, x):
                return self.fc(F.relu(self.conv(x)).mean((2, 3)))

        self.tower = Tower()

    def forward(self, a, b):
        return torch.abs(self.tower(a) - self.tower(b))


def test_a_tower_with_functions_is_a_class_of_its_own(framework):
    text = port(Siamese().eval(), to=framework).source()
    if framework not in ("jax", "tensorflow"):
        assert "class Tower(" in text
        assert "self.tower(a)" in text
        assert "self.tower(b)" in text


@pytest.mark.parametrize("kind", MODELS)
def test_a_file_has_a_shared_layer_once(framework, kind, tmp_path):
    """The arrays are the same from each framework, and the model of the file alone has as many weights."""
    save(made(kind), path := tmp_path / "original.safetensors")
    save(ported(kind, framework), again := tmp_path / "ported.safetensors")
    one, other = ([*map(np.ndarray.tobytes, load_file(each).values())] for each in (path, again))
    assert sorted(one) == sorted(other)
    loaded = load(again, backend=framework)
    assert weights(framework, loaded) == sum(parameter.numel() for parameter in made(kind).parameters())
    np.testing.assert_array_equal(run(framework, loaded, X), run(framework, ported(kind, framework).model, X))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"layer": "9"}, "layers[2].layer: got '9', expected the path of a layer with tensors before it"),
        ({"layer": "1"}, "layers[2]: got other options than those of the layer that is called again"),
        ({"layer": 0}, "layers[2].layer: got 0"),
        ({"stride": [2, 2]}, "layers[2]: got other options than those of the layer that is called again"),
        ({"layer": None}, "got no layer that is called again in version 4"),
    ],
)
def test_files_that_lie_of_a_shared_layer(change, why, tmp_path):
    shared = nn.Conv2d(3, 3, 3, padding=1)
    save(nn.Sequential(shared, nn.ReLU(), shared), path := tmp_path / "model.safetensors")
    records, tensors = packed(read(nn.Sequential(shared, nn.ReLU(), shared)).parts)
    assert (records[2]["layer"], {*tensors}) == ("0", {"0.kernel", "0.bias"})
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    about = json.loads(header["__metadata__"]["convlab"])
    about["layers"][2] = {key: value for key, value in {**records[2], **change}.items() if value is not None}
    header["__metadata__"]["convlab"] = json.dumps(about)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    with pytest.raises(ModelFileError, match=re.escape(why)):
        load(path, backend="torch")


class ChannelAttention(nn.Module):
    """A residual block whose layers of two pixels are called for the mean and for the maxima (arXiv:1807.06521)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1))

    def forward(self, x):
        y = self.conv(x)
        return x + y * torch.sigmoid(self.fc(F.adaptive_avg_pool2d(y, 1)) + self.fc(F.adaptive_max_pool2d(y, 1)))


def test_blocks_with_layers_called_twice_are_written_once(framework, tmp_path):
    model = nn.Sequential(OrderedDict(stage=nn.Sequential(ChannelAttention(), ChannelAttention()))).eval()
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 9)).astype("float32")
    text = check(framework, port(model, to=framework), tmp_path, x)
    assert len(re.findall(r'\.conv"|self\.conv =', text)) == 1
