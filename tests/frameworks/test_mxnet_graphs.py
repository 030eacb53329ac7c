"""Gluon blocks whose code is their own, and symbols from files: read as graphs, and ported whole."""

from __future__ import annotations

import numpy as np
import pytest
from gluon_layers import models, randomly, semantics
from making import port_parts

from convlab import load, port
from convlab.errors import ModelFileError
from convlab_mxnet import attention_blocks

import mxnet as mx  # isort: skip (an ordinary import, after convlab's)
from mxnet.gluon import nn  # isort: skip

X = np.random.default_rng(0).normal(size=(2, 3, 13, 12)).astype("float32")


class Block(mx.gluon.HybridBlock):
    """A sum, a product, channels one after another, numbers, and a dense layer that flattens."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(4, 3, padding=1, in_channels=3, activation="relu")
        self.branch = nn.HybridSequential()
        self.branch.add(nn.Conv2D(4, 3, padding=1, in_channels=4), nn.BatchNorm(in_channels=4), nn.LeakyReLU(0.1))
        self.squeeze = nn.Conv2D(4, 1, in_channels=4)
        self.pool = nn.MaxPool2D(3, 2, ceil_mode=True)
        self.last = nn.Dense(5, in_units=8)

    def hybrid_forward(self, F, x):
        x = self.conv(x)
        x = x + self.branch(x)
        share = F.sigmoid(self.squeeze(F.mean(x, axis=(2, 3), keepdims=True)) * 0.5 - 1)
        y = F.concat(F.broadcast_mul(x, share), F.clip(x, 0, 6), dim=1)
        return F.log_softmax(self.last(F.mean(self.pool(y), axis=(2, 3))), axis=-1)


def net():
    mx.random.seed(0)
    block = Block()
    block.initialize(mx.init.Uniform(0.5))
    block(mx.nd.array(X))
    for parameter in block.collect_params(".*running_var").values():
        parameter.set_data(mx.nd.random.uniform(0.5, 2, shape=parameter.shape))
    return block


@pytest.mark.parametrize("hybridized", [False, True])
def test_ported_whole(hybridized):
    block = net()
    if hybridized:
        block.hybridize()
    ported = port(block, to="mxnet")
    assert ported.evidence.same
    assert ported.untouched == {}
    expected = block(mx.nd.array(X)).asnumpy()
    assert ported.model(mx.nd.array(X)).asnumpy() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    ported.model.hybridize()
    assert ported.model(mx.nd.array(X)).asnumpy() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def with_code(code):
    """A block of a convolution, and code behind it."""

    class Coded(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(4, 3, in_channels=3)

        def hybrid_forward(self, F, x):
            return code(F, self.conv(x))

    mx.random.seed(0)
    block = Coded()
    block.initialize(mx.init.Uniform(0.5))
    return block


@pytest.mark.parametrize("numpy", [False, True])
def test_operations_on_each_number(numpy):
    class Numbers(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(4, 3, in_channels=3)
            self.scale = self.params.get("scale", shape=(1,))

        def hybrid_forward(self, F, x, scale):
            x = self.conv(x)
            if numpy:
                y = F.np.sqrt(F.np.abs(x * scale)) / F.np.exp(F.np.clip(x, -1, 0.5))
                return F.np.minimum(F.np.maximum(y, 0.1), 0.75)
            y = F.broadcast_div(F.sqrt(F.abs(F.broadcast_mul(x, scale))), F.exp(F.clip(x, -1, 0.5)))
            return F.minimum(F.maximum(y, 0.1), 0.75)

    with semantics(numpy):
        block = randomly(Numbers())
        ported = port(block, to="mxnet")
        assert ported.evidence.same
        assert ported.untouched == {}
        x = (mx.np if numpy else mx.nd).array(X)
        assert ported.model(x).asnumpy() == pytest.approx(block(x).asnumpy(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("aligned", [{}, {"align_corners": False}], ids=["corners", "centres"])
def test_bilinear_resizing(aligned):
    """MXNet aligns the corners where nothing is said."""

    def code(F, y):
        larger = F.contrib.BilinearResize2D(y, scale_height=2, scale_width=3, **aligned)
        smaller = F.contrib.BilinearResize2D(larger, height=5, width=7, **aligned)
        return F.contrib.BilinearResize2D(smaller, y, mode="like", **aligned)

    block = with_code(code)
    assert [part.layer.kind for part in models.read(block).parts][1:] == ["upsample", "resize", "resize_like"]
    ported = port(block, to="mxnet")
    assert ported.evidence.same
    assert ported.untouched == {}
    x = mx.nd.array(X)
    assert ported.model(x).asnumpy() == pytest.approx(block(x).asnumpy(), rel=1e-5, abs=1e-6)


def test_paths():
    paths = [part.path for part in models.read(net()).parts]
    assert paths[:6] == ["conv", "conv.act", "branch.0", "branch.1", "branch.2", "plus0"]


@pytest.mark.filterwarnings("ignore:Cannot decide type:UserWarning")
def test_a_symbol_of_files(tmp_path):
    """What MXNet exported is ported without the code that made it."""
    block = net()
    block.hybridize()
    block(mx.nd.array(X))
    block.export(str(tmp_path / "net"))
    loaded = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    ported = port(loaded, to="mxnet")
    assert ported.evidence.same
    expected = block(mx.nd.array(X)).asnumpy()
    assert ported.model(mx.nd.array(X)).asnumpy() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_model_of_the_zoo():
    """A ResNet of gluon's own collection, one layer of each stage."""
    block = mx.gluon.model_zoo.vision.ResNetV2(
        mx.gluon.model_zoo.vision.BasicBlockV2, [1, 1], [4, 4, 8], classes=3, thumbnail=True
    )
    block.initialize(mx.init.Xavier())
    block(mx.nd.array(X))
    ported = port(block, to="mxnet")
    assert ported.evidence.same
    assert ported.model(mx.nd.array(X)).asnumpy() == pytest.approx(block(mx.nd.array(X)).asnumpy(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    "code",
    [
        lambda F, x: F.Pad(x, mode="reflect", pad_width=(0, 0, 0, 0, 1, 2, 0, 3)),
        lambda F, x: F.pad(x, mode="edge", pad_width=(0, 0, 0, 0, 1, 2, 0, 3)),
        lambda F, x: F.pad(x, mode="constant", constant_value=2, pad_width=(0, 0, 0, 0, 1, 2, 0, 3)),
        lambda F, x: F.slice_axis(x, axis=2, begin=1, end=-2),
        lambda F, x: F.slice_axis(x, axis=3, begin=2, end=None),
        lambda F, x: F.slice_axis(x, axis=1, begin=1, end=3),
        lambda F, x: F.L2Normalization(x, mode="channel"),
        lambda F, x: F.L2Normalization(F.flatten(F.Pooling(x, global_pool=True, pool_type="max")), eps=0.5),
    ],
)
def test_borders_parts_and_lengths(code) -> None:
    block = with_code(code)
    ported = port(block, to="mxnet")
    assert ported.evidence.same
    x = mx.nd.array(X)
    assert ported.model(x).asnumpy() == pytest.approx(block(x).asnumpy(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (lambda F, x: F.sort(x), "sort0: convlab doesn't know the operator sort"),
        (lambda F, x: F.concat(x, x, dim=2), "it concatenates along axis 2, expected 1"),
        (lambda F, x: F.reshape(x, (0, 2, -1)), r"it gives the shape \(0, 2, -1\), expected \(0, -1\)"),
        (lambda F, x: F.mean(x, axis=1), "it reduces the axes 1, expected"),
        (lambda F, x: F.L2Normalization(x), "its mode is 'instance', expected 'channel' of images"),
        (lambda F, x: F.LeakyReLU(F.sin(x)), "sin0: convlab doesn't know the operator sin"),
        (lambda F, x: F.slice_axis(x, axis=2, begin=0, end=3), "it takes 0 to 3 of axis 2, which depends on the image"),
        (
            lambda F, x: F.Pad(x, mode="constant", pad_width=(0, 0, 1, 0, 0, 0, 0, 0)),
            r"it pads by \(0, 0, 1, 0, 0, 0, 0, 0\) in the mode 'constant'",
        ),
    ],
)
def test_what_isnt_known_is_named(code, words):
    block = with_code(code)
    ported = port_parts(block, words, to="mxnet")
    assert list(ported.layers) == ["conv"]


class Residual(nn.Block):
    """As *Dive into Deep Learning* writes it: a `forward` that takes arrays of `mx.np`, and no symbols."""

    def __init__(self, channels: int, strides: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(channels, 3, strides, 1, in_channels=4)
        self.bn1, self.bn2 = nn.BatchNorm(in_channels=channels), nn.BatchNorm(in_channels=channels)
        self.conv2 = nn.Conv2D(channels, 3, padding=1, in_channels=channels)
        self.conv3 = nn.Conv2D(channels, 1, strides, in_channels=4)

    def forward(self, X):
        Y = mx.npx.relu(self.bn1(self.conv1(X)))
        return mx.npx.relu(self.bn2(self.conv2(Y)) + self.conv3(X))


class Sizes(nn.Block):
    """A `forward` that does something else for other sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2D(4, 3, in_channels=3)

    def forward(self, X):
        return mx.npx.relu(self.conv(X)) if X.shape[2] > 40 else self.conv(X)


@mx.util.use_np
def test_code_that_takes_no_symbols() -> None:
    net = nn.Sequential()
    net.add(nn.Conv2D(4, 3, in_channels=3), Residual(4, 1), Residual(6, 2), nn.GlobalAvgPool2D(), nn.Dense(5))
    net.initialize(mx.init.Uniform(0.5))
    with mx.autograd.record():
        net(mx.np.array(X) + 1)  # The statistics of the batch norms aren't those that they begin with.
    expected = net(mx.np.array(X)).asnumpy()
    ported = port(net, to="mxnet")
    assert ported.evidence.same
    assert not ported.untouched
    assert ported.model(mx.np.array(X)).asnumpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert "1.bn1" in ported.layers
    assert net(mx.np.array(X)).asnumpy() == pytest.approx(expected, rel=1e-6)
    odd = Sizes()
    odd.initialize()
    port_parts(odd, "something else for images of other sizes", to="mxnet")


class Excite(mx.gluon.HybridBlock):
    """A squeeze-and-excite as GluonCV writes it, and TensorFlow's order of a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.flat = nn.Conv2D(8, 3, in_channels=3), nn.Flatten()
        self.down, self.up = nn.Dense(2, in_units=8), nn.Dense(8, in_units=2)

    def hybrid_forward(self, F, x):
        x = self.conv(x)
        share = F.relu(self.down(self.flat(F.contrib.AdaptiveAvgPooling2D(x, output_size=1))))
        share = F.sigmoid(self.up(share)).expand_dims(axis=2).expand_dims(axis=3)
        return F.depth_to_space(F.broadcast_mul(x, share), 2)


def test_operators_of_contrib() -> None:
    chain = nn.HybridSequential()
    chain.add(Excite(), nn.Conv2D(4, 1, in_channels=2), mx.gluon.contrib.nn.PixelShuffle2D(2))
    chain.initialize(mx.init.Uniform(0.5))
    for net, parts in ((chain[0], 8), (chain[1:], 2)):
        x = mx.nd.array(X if net is chain[0] else X[:, :2])
        assert len(models.read(net).parts) >= parts
        ported = port(net, to="mxnet")
        assert ported.evidence.same
        assert not ported.untouched
        assert ported.model(x).asnumpy() == pytest.approx(net(x).asnumpy(), rel=1e-5, abs=1e-6)
    rows = nn.HybridSequential()
    rows.add(nn.Conv2D(4, 3, in_channels=3), attention_blocks.FirstPixel(), nn.Dense(2, in_units=4))
    rows.initialize()
    assert [part.layer.kind for part in models.read(rows).parts] == ["conv2d", "first_pixel", "dense"]


def two_images():
    """A symbol of two images of different channels, of which the graph lists the second one first."""
    left, right = (mx.sym.var(name, dtype="float32") for name in ("left", "right"))
    other = mx.sym.Convolution(right, num_filter=2, kernel=(3, 3), name="other")
    net = mx.gluon.SymbolBlock(other - mx.sym.Convolution(left, num_filter=2, kernel=(3, 3), name="own"), [left, right])
    net.initialize(mx.init.Uniform(1))
    return net, (mx.nd.array(X), mx.nd.array(X[:, :1]))


def test_a_symbol_of_two_images():
    net, given = two_images()
    expected = net(*given).asnumpy()
    ported = port(net, to="mxnet")
    np.testing.assert_allclose(ported.model(*given).asnumpy(), expected, rtol=1e-5, atol=1e-5)


def test_an_exported_symbol_of_two_images(tmp_path):
    """Its order is that of the graph; a parameter that the file lacks is no input."""
    net, given = two_images()
    expected = net(*given).asnumpy()
    net.hybridize()
    net(*given)
    net.export(str(tmp_path / "net"))
    loaded = load(tmp_path / "net-symbol.json", backend="mxnet")
    assert [*models.read(loaded).inputs] == ["input right", "input left"]
    np.testing.assert_allclose(loaded(*given[::-1]).asnumpy(), expected, rtol=1e-5, atol=1e-5)
    arrays = mx.nd.load(str(tmp_path / "net-0000.params"))
    mx.nd.save(
        str(tmp_path / "net-0000.params"), {name: each for name, each in arrays.items() if "own_weight" not in name}
    )
    with pytest.raises(ModelFileError, match="'own_weight' isn't a parameter"):
        load(tmp_path / "net-symbol.json", backend="mxnet")


class Forward(mx.gluon.Block):
    """A `forward` that decides by a shape, and takes no symbols."""

    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv2D(4, 3, in_channels=3), nn.Dense(4, in_units=5)

    def forward(self, image, row):
        x = self.conv(image)
        return (x.mean(axis=(2, 3)) if x.shape[2] > 1 else x) * self.dense(row)


def test_a_forward_of_two_arguments():
    net = randomly(Forward())
    row = np.random.default_rng(1).normal(size=(2, 5)).astype("float32")
    ported = port(net, to="mxnet", inputs={"row": row, "image": X})
    given = mx.nd.array(X), mx.nd.array(row)
    np.testing.assert_allclose(ported.model(*given).asnumpy(), net(*given).asnumpy(), rtol=1e-5, atol=1e-5)
