"""Models that take several images, or images and rows of numbers: ported, compared, saved, written as source."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from chains import conv, dense
from heads import X, model, results, with_integers
from making import words
from pairs import IMAGE, ROW, pair
from safetensors import safe_open
from sources import net, run_source
from torch import nn
from torch.nn import functional as F

from convlab import compare, load, port, save
from convlab.errors import ModelError, ModelFileError
from convlab.models.adapters import read
from convlab.models.files.neutral import read_stored, write_parts
from convlab.models.layers.activations import Activation
from convlab.models.layers.inputs import known_inputs
from convlab.models.layers.joining import Add, Concatenate, Subtract
from convlab.models.layers.pooling import GlobalPool
from convlab.models.layers.reading import Part
from convlab.models.layers.shapes import Known
from convlab.models.layers.steps import Step

Y = np.random.default_rng(5).integers(-3, 4, X.shape).astype("float32")
LEFT, RIGHT = "input left", "input right"
DEPTH = np.random.default_rng(6).integers(-3, 4, (len(X), 1, *X.shape[2:])).astype("float32")
# The channels of one image aren't those of the other.
IMAGES = {LEFT: (3, None, None), RIGHT: (1, None, None)}


@pytest.fixture
def other(framework, backends) -> str:
    """The framework after this one."""
    others = [name for name in backends if name != "numpy"]
    return others[(others.index(framework.partition(".")[0]) + 1) % len(others)]


def images(first=LEFT, second=RIGHT):
    """The graph of a model of two images of different channels."""
    return [
        ("colour", conv(4, 3), [first]),
        ("depth", conv(5, 1), [second]),
        ("both", Concatenate(), ["colour", "depth"]),
        ("head", conv(2, 9, (1, 1)), ["both"]),
    ]


def alike(first=LEFT, second=RIGHT):
    """The graph of a model of two images, each of which goes through a convolution of its own."""
    return [
        ("one", conv(4, 3), [first]),
        ("two", conv(4, 3, bias=False), [second]),
        ("apart", Subtract(), ["one", "two"]),
        ("abs", Activation("abs"), ["apart"]),
        ("mean", GlobalPool("average", keepdims=False), ["abs"]),
        ("head", dense(2, 4), ["mean"]),
    ]


ALIKE = {LEFT: (3, None, None), RIGHT: (3, None, None)}


def test_a_siamese_network(giver, taker):
    """One layer for both images; integers have the same bits everywhere."""
    original = model(giver, "siamese")
    ported = port(original, to=taker)
    assert ported.evidence.same
    assert ported.untouched == {}
    expected = results(giver, original, X, Y)
    assert np.array_equal(results(taker, ported.model, X, Y), expected)
    assert not np.array_equal(results(taker, ported.model, Y, X), expected)
    assert np.array_equal(results(giver, port(ported, to=giver).model, X, Y), expected)
    assert compare(original, ported)


def test_an_image_and_a_row(giver, taker):
    """Code of two arguments, of which one is a row of numbers that goes to a dense layer and beside it."""
    original = pair(giver)
    ported = port(original, to=taker, inputs=(IMAGE, ROW))
    assert ported.evidence.same
    assert ported.untouched == {}
    expected = results(giver, original, IMAGE, ROW) if giver != "tensorflow" else of_keras(original)
    assert np.array_equal(results(taker, ported.model, IMAGE, ROW), expected)


def of_keras(original):
    return original(np.moveaxis(IMAGE, 1, -1), ROW).numpy()


def test_images_of_different_channels(giver, taker):
    original = with_integers(giver, net(giver, images(), IMAGES))
    ported = port(original, to=taker)
    assert ported.evidence.same
    expected = results(giver, original, X, DEPTH)
    assert np.array_equal(results(taker, ported.model, X, DEPTH), expected)


def test_inputs_keep_their_names(giver, taker):
    """Where a framework tells them; Keras's `Input` has them in the model."""
    ported = port(net(giver, alike(), ALIKE), to=taker)
    assert [*read(ported).inputs] == [LEFT, RIGHT]
    if taker == "tensorflow":
        assert [each.name for each in ported.model.inputs] == ["left", "right"]


@pytest.mark.parametrize("graph", [images, alike])
def test_source(framework, graph, tmp_path):
    inputs, given = (IMAGES, (X, DEPTH)) if graph is images else (ALIKE, (X, Y))
    ported = port(net(framework, graph(), inputs), to=framework)
    text = ported.source()
    assert "left" in text
    assert "right" in text
    save(ported, path := tmp_path / "model.safetensors")
    loaded = load(path, into=run_source(framework, text, *given))
    assert np.array_equal(results(framework, loaded, *given), results(framework, ported.model, *given))


def test_source_of_an_image_and_a_row(framework, tmp_path):
    ported = port(pair(framework), to=framework, inputs=(IMAGE, ROW))
    save(ported, path := tmp_path / "model.safetensors")
    loaded = load(path, into=run_source(framework, ported.source(), IMAGE, ROW))
    expected = results(framework, ported.model, IMAGE, ROW)
    assert np.array_equal(results(framework, loaded, IMAGE, ROW), expected)


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_files(framework, other, name, tmp_path):
    original = with_integers(framework, net(framework, images(), IMAGES))
    save(original, path := tmp_path / name)
    loaded = load(path, backend=other)
    assert np.array_equal(results(other, loaded, X, DEPTH), results(framework, original, X, DEPTH))
    assert [*read(loaded).inputs] == [LEFT, RIGHT]


def test_the_file_says_what_the_inputs_are(framework, tmp_path):
    """The same bytes from each framework, and the names of the inputs in them."""
    save(net(framework, images(), IMAGES), path := tmp_path / "model.safetensors")
    parts = [Part(path, None, layer, layer.kind, tuple(inputs), path) for path, layer, inputs in images()]
    write_parts(parts, again := tmp_path / "again.safetensors", inputs=[LEFT, RIGHT])
    assert path.read_bytes() == again.read_bytes()
    with safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["convlab"])
    assert (about["version"], about["inputs"]) == (3, ["left", "right"])
    assert [record.get("inputs") for record in about["layers"]][:3] == [[LEFT], [RIGHT], ["0", "1"]]
    assert read_stored(path)[1] == (LEFT, RIGHT)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["left"], "2 to 1000 different names"),
        (["left", "left"], "2 to 1000 different names"),
        (["left", ""], "2 to 1000 different names"),
        (["left", "up"], "'input right', expected 'input left' or 'input up' or the path of a layer before it"),
        ("left", "2 to 1000 different names"),
    ],
)
def test_a_file_that_lies(names, why, tmp_path):
    parts = [Part(path, None, layer, layer.kind, tuple(inputs), path) for path, layer, inputs in images()]
    write_parts(parts, path := tmp_path / "model.safetensors", inputs=[LEFT, RIGHT])
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["convlab"]) | {"inputs": names}
    header["__metadata__"]["convlab"] = json.dumps(about)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(ModelFileError) as caught:
        read_stored(path)
    assert why in str(caught.value)


def test_swapped_inputs(giver, taker):
    """All layers are the same, and take the other image."""
    mine, theirs = net(giver, alike(), ALIKE), net(taker, alike(RIGHT, LEFT), ALIKE)
    comparison = compare(mine, theirs)
    assert comparison.same is False
    assert comparison.first.a.startswith("one")
    why = (
        "wapped inputs: the second model takes 'left' as the first takes 'right' and 'right' as the first takes 'left'."
    )
    assert why in words(comparison)


def test_another_wiring(framework):
    """Only one of the layers takes the other image."""
    both = [("one", conv(3, 3, (1, 1)), [LEFT]), ("two", conv(3, 3, (1, 1), bias=False), [RIGHT])]
    graphs = [
        [*both, ("apart", Subtract(), ["one", "two"]), ("last", Subtract(), ["apart", value])]
        for value in (LEFT, RIGHT)
    ]
    comparison = compare(*(net(framework, graph, ALIKE) for graph in graphs))
    assert comparison.same is False
    assert comparison.first.a.startswith("last")
    assert "the input 'left', the second those of 'apart', the input 'right'" in words(comparison)


def test_fewer_inputs(framework):
    single = net(framework, alike("input", "input"))
    comparison = compare(net(framework, alike(), ALIKE), single)
    assert comparison.same is False
    assert "the first model takes 2 inputs (left and right), the second one input" in words(comparison)


def test_inputs_by_name_and_by_order(framework):
    original = net(framework, images(), IMAGES)
    by_name = compare(original, original, {"right": DEPTH, "left": X})
    assert by_name.same
    assert by_name.rows[0].sizes == [X.shape[2:]]
    assert compare(original, original, (X, DEPTH)).same
    assert compare(original, original, [(X, DEPTH), (X[:1], DEPTH[:1])]).same


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        (X, "got 1 array, expected 2 arrays (left and right)"),
        ((X, DEPTH, X), "got 3 arrays, expected 2 arrays (left and right)"),
        ({"left": X, "up": DEPTH}, "got arrays for left and up, expected left and right"),
        ((X, DEPTH[:1]), "expected as many images in each"),
        ((), "got no image"),
    ],
)
def test_other_inputs_are_refused(framework, inputs, why):
    original = net(framework, images(), IMAGES)
    with pytest.raises(ModelError) as caught:
        port(original, to=framework, inputs=inputs)
    assert why in words(caught.value)


def step(layer, inputs, value):
    return Step(value, (layer,), (None,), tuple(inputs), value)


def test_channels_by_what_lacks():
    """A row of 13 - 4 - 4 numbers beside four of each of two images; two images of a sum, and of six channels."""
    pooled = [step(conv(4, 3), [LEFT], "a"), step(GlobalPool("average", keepdims=False), ["a"], "b")]
    steps = [*pooled, step(Concatenate(), ["b", RIGHT, "b"], "c"), step(dense(2, 13), ["c"], "d")]
    known = known_inputs(steps, {LEFT: None, RIGHT: None}, (8, 8))
    assert known == {LEFT: Known(3, (8, 8)), RIGHT: Known(5, None, True)}
    untold = {LEFT: None, RIGHT: None}
    for joining, channels in ((Add(), 6), (Concatenate(), 3)):
        steps = [step(joining, [LEFT, RIGHT], "a"), step(conv(2, 6), ["a"], "b")]
        assert [each.channels for each in known_inputs(steps, untold, None).values()] == [channels] * 2
    steps = [step(Concatenate(), [LEFT, RIGHT], "a"), step(conv(2, 5), ["a"], "b")]
    assert sum(each.channels for each in known_inputs(steps, untold, None).values()) == 5
    told = known_inputs(steps, {LEFT: (2, 8, 8), RIGHT: None}, (8, 8))
    assert told == {LEFT: Known(2, (8, 8)), RIGHT: Known(3, (8, 8))}


class Named(nn.Module):
    """Its layers are called like its arguments, one of which is called like a module of PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.F = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x, F):
        y = torch.relu(self.x(x)) + self.F(F)[:, :, None, None]
        return torch.relu(y + x)


class Modulated(nn.Module):
    """A row of numbers tells by how much the channels of an image are scaled and shifted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(5, 8), nn.Conv2d(4, 2, 1)

    def forward(self, image, row):
        scale, shift = self.fc(row).chunk(2, 1)
        return self.out(self.conv(image) * scale[:, :, None, None] + shift[:, :, None, None])


class Late(nn.Module):
    """The row comes in behind layers of other numbers of channels; no layer takes it and the image."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.GroupNorm(4, 16)
        self.emb, self.up, self.out = nn.Linear(7, 32), nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(8, 1, 1)

    def forward(self, x, cond):
        scale, shift = self.emb(cond)[:, :, None, None].chunk(2, 1)
        y = self.norm(self.mid(F.max_pool2d(F.relu(self.down(x)), 2))) * (1 + scale) + shift
        return torch.sigmoid(self.out(self.up(F.silu(y))))


class Cosine(nn.Module):
    """The cosine of the angle between what two images become."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 8)

    def forward(self, a, b):
        a, b = (F.normalize(self.fc(torch.relu(self.conv(x)).mean((2, 3))), dim=1) for x in (a, b))
        return (a * b).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (Named, [(3, 8, 7), (4,)]),
        (Modulated, [(3, 8, 7), (5,)]),
        (Late, [(3, 12, 14), (7,)]),
        (Cosine, [(3, 8, 7), (3, 8, 7)]),
    ],
)
def test_code_of_pytorch(framework, make, shapes, tmp_path):
    torch.manual_seed(0)
    model = make().eval()
    inputs = [np.random.default_rng(i).normal(size=(2, *shape)).astype("float32") for i, shape in enumerate(shapes)]
    ported = port(model, to=framework)
    with torch.no_grad():
        expected = model(*map(torch.from_numpy, inputs)).numpy()
    result = results(framework, ported.model, *inputs)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    save(ported, tmp_path / "model.safetensors")
    filled = load(tmp_path / "model.safetensors", into=run_source(framework, ported.source(), *inputs))
    np.testing.assert_array_equal(results(framework, filled, *inputs), result)


class Filled(nn.Module):
    """What a mask of one channel hides is filled; no layer takes the image or the mask alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, image, mask):
        seen = image * (1 - mask)
        y = self.second(torch.relu(self.first(torch.cat([seen, mask], 1))))
        return seen + torch.sigmoid(y) * mask


def test_channels_that_count_for_all(framework):
    torch.manual_seed(0)
    model = Filled().eval()
    image = np.random.default_rng(0).normal(size=(2, 3, 8, 7)).astype("float32")
    mask = np.random.default_rng(1).integers(0, 2, (2, 1, 8, 7)).astype("float32")
    with torch.no_grad():
        expected = model(torch.from_numpy(image), torch.from_numpy(mask)).numpy()
    result = results(framework, port(model, to=framework).model, image, mask)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_a_tuple_is_for_several_inputs():
    model = nn.Conv2d(3, 2, 3)
    with pytest.raises(ModelError, match="a tuple of several arrays"):
        port(model, to="torch", inputs=(X, X))
    assert port(model, to="torch", inputs=[X, X]).evidence.same


def test_another_order_of_arguments_is_said():
    class Turned(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, mask, image):
            return self.model(image, mask)

    model = Filled().eval()
    comparison = compare(model, Turned(model))
    assert comparison.same
    assert "the first takes image and mask, the second mask and image" in words(comparison)
