"""convlab's layer as users of `gluon.nn.Conv2D` know theirs, with the same weights; arrays of both kinds."""

from __future__ import annotations

import copy

import native_arguments
import numpy as np
import pytest
from gluon_layers import semantics

import convlab
from convlab import errors
from convlab import mxnet as lab
from convlab_mxnet.layers import NATIVE
from convlab_mxnet.ops import mx

nn = mx.gluon.nn
PIXELS = np.random.default_rng(0).standard_normal((2, 4, 9, 8)).astype("float32")
OPTIONS = (
    {"strides": 2, "padding": 1, "activation": "relu"},
    {"groups": 2, "dilation": (2, 1), "activation": "tanh", "weight_initializer": "xavier", "bias_initializer": "ones"},
    {"use_bias": False, "weight_initializer": mx.init.Normal(0.3), "activation": "softrelu", "in_channels": 4},
    {"in_channels": 0, "prefix": "first_"},
)


def image(numpy: bool):
    return (mx.np if numpy else mx.nd).array(PIXELS)


def made(layer, x, **options):
    """A layer with initial values by MXNet's seed 3."""
    block = layer(6, (3, 2), **options)
    mx.random.seed(3)
    np.random.seed(3)
    block.initialize()
    block(x)
    return block


def test_every_argument_of_gluons_is_known() -> None:
    assert native_arguments.unknown_arguments(NATIVE, nn.Conv2D.__init__) == []
    assert native_arguments.positional(nn.Conv2D.__init__) == list(NATIVE.order)


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_gluons_arguments(options, numpy, tmp_path, capsys, recwarn) -> None:
    with semantics(numpy):
        x = image(numpy)
        theirs, ours = made(nn.Conv2D, x, **options), made(lab.Conv2D, x, **options)
        np.testing.assert_array_equal(ours.weight.data().asnumpy(), theirs.weight.data().asnumpy())
        expected = theirs(x).asnumpy()
        np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-5, atol=1e-6)
        ours.summary(x)
        assert "(2, 6, 5, 5)" in capsys.readouterr().out or options.get("strides") != 2
        assert convlab.compare(theirs, ours).same
        ours.save_parameters(str(tmp_path / "saved"))
        other = lab.Conv2D(6, (3, 2), **options)
        other.load_parameters(str(tmp_path / "saved"))
        for layer in (other, copy.deepcopy(other)):
            np.testing.assert_allclose(layer(x).asnumpy(), expected, rtol=1e-5, atol=1e-6)
        ours.hybridize()
        np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-5, atol=1e-6)
        ours.export(str(tmp_path / "graph"))
        graph = str(tmp_path / "graph-symbol.json")
        loaded = mx.gluon.SymbolBlock.imports(graph, ["data"], str(tmp_path / "graph-0000.params"))
        np.testing.assert_allclose(loaded(x).asnumpy(), expected, rtol=1e-5, atol=1e-6)
    recwarn.clear()  # MXNet warns that a graph doesn't tell its input's dtype


def test_an_initialiser_sees_the_channels_in_either_layout() -> None:
    """Glorot's variance is 2 / (9 * (4 + 64)); taken for OIHW, an HWIO weight would get another."""
    layer = lab.Conv2D(3, out_channels=64, layout="NHWC", weight_initializer=mx.init.Xavier())
    mx.random.seed(0)
    layer.initialize()
    layer(mx.nd.array(PIXELS.transpose(0, 2, 3, 1)))
    assert float(layer.weight.data().asnumpy().std()) == pytest.approx((2 / (9 * 68)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("layers", ["builtin", "convlab"])
def test_ported_layers_take_both_kinds_of_arrays(numpy, hybridized, layers) -> None:
    """The same numbers and gradients from arrays of mx.np, which `lab.asarray` gives, and of mx.nd."""
    with semantics(numpy):
        source = nn.HybridSequential()
        source.add(nn.Conv2D(4, 3, in_channels=4), nn.Activation("relu"), nn.MaxPool2D(2), nn.Flatten())
        source.add(nn.Dense(5, in_units=36))
        source.initialize(mx.init.Uniform(0.5))
        conv = source[0]
        for theirs in (source, conv):
            x = image(numpy)
            x.attach_grad()
            with mx.autograd.record():
                expected = theirs(x)
                loss = (expected * expected).sum()
            loss.backward()
            model = convlab.port(theirs, to="mxnet", layers=layers).model
            if hybridized:
                model.hybridize()
            for pixels in (mx.np.array(PIXELS), mx.nd.array(PIXELS), lab.asarray(PIXELS)):
                pixels.attach_grad()
                with mx.autograd.record():
                    y = model(pixels)
                    loss = (y * y).sum()
                loss.backward()
                assert type(y) is type(pixels)
                np.testing.assert_allclose(y.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(pixels.grad.asnumpy(), x.grad.asnumpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("numpy", [False, True])
def test_layers_and_functions_take_both_kinds_of_arrays(numpy) -> None:
    with semantics(numpy):
        layer = lab.Conv2D(8, 3, activation="sigmoid")
        layer.initialize()
        kernel = np.ones((3, 3), "float32")
        for pixels in (mx.np.array(PIXELS), mx.nd.array(PIXELS)):
            y, k = layer(pixels), type(pixels)
            assert type(y) is k
            assert type(lab.corr2d(pixels, kernel)) is k
        weight, bias = layer.weight.data().asnumpy(), layer.bias.data().asnumpy()
        expected = 1 / (1 + np.exp(-convlab.corr2d(PIXELS, weight, bias=bias, backend="numpy")))
        np.testing.assert_allclose(y.asnumpy(), expected, rtol=1e-5, atol=1e-6)


def test_integers_of_mx_nd() -> None:
    for dtype in ("int8", "uint8", "int32", "int64"):
        y = lab.corr2d(mx.nd.array([[1, 2, 4]], dtype=dtype), [[1, 1]])
        assert type(y) is mx.nd.NDArray
        assert (y.dtype, y.asnumpy().tolist()) == (np.int64, [[3, 6]])


@pytest.mark.parametrize(
    ("dtype", "held"), [("int16", "int32"), ("uint16", "int32"), ("uint32", "int64"), ("uint64", "int64")]
)
def test_integers_that_mxnet_has_not(dtype, held) -> None:
    array = lab.asarray(np.array([0, np.iinfo(dtype).max // 2], dtype))
    assert lab.ops.dtype(array) == held
    assert array.asnumpy().tolist() == [0, np.iinfo(dtype).max // 2]
    assert lab.ops.dtype(lab.asarray(lab.asarray([1, 2]), dtype)) == held


def test_what_is_refused() -> None:
    with pytest.raises(errors.OptionError, match=r"filters: got an argument .* Hint: write out_channels=8\."):
        lab.Conv2D(3, filters=8)
    with pytest.raises(errors.GeometryError, match="data_format: got 'NCWH'"):
        lab.Conv2D(8, 3, layout="NCWH")


def test_an_image_that_looks_channels_last() -> None:
    layer = lab.Conv2D(3, out_channels=2)
    layer.initialize()
    with pytest.warns(errors.LayoutWarning, match=r"X: got shape \(1, 16, 16, 3\), which looks like \(H, W, C\)"):
        layer(mx.np.ones((1, 16, 16, 3)))


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("make", ["layer", "conv", "stack"])
def test_arrays_of_both_kinds_before_and_after_set_np(make, hybridized) -> None:
    """Whatever semantics MXNet has, the values are the same and the kind that came in goes out."""
    x = np.random.default_rng(0).integers(-4, 5, (2, 4, 9, 8)).astype("float32")
    layer = lab.Conv2D(3, in_channels=4, out_channels=8, padding=1, seed=0)
    layer.initialize()
    if make == "layer":
        block = layer
    elif make == "conv":
        block = convlab.port(layer, to="mxnet").model
    else:
        stack = mx.gluon.nn.HybridSequential()
        stack.add(layer, mx.gluon.nn.MaxPool2D(2))
        block = convlab.port(stack, to="mxnet", input_size=(9, 8)).model
    expected = None
    for switch in (None, mx.npx.set_np, mx.npx.reset_np):
        if switch is not None:
            switch()
        try:
            if hybridized:
                block.hybridize()
            for kind in (mx.np.array, mx.nd.array):
                y = block(kind(x))
                assert isinstance(y, mx.np.ndarray) == (kind is mx.np.array)
                expected = y.asnumpy() if expected is None else expected
                np.testing.assert_array_equal(y.asnumpy(), expected)
        except BaseException:
            mx.npx.reset_np()
            raise
    bound = convlab.testing.error_bound(x, layer.weight.data().asnumpy(), padding=1)
    true = convlab.testing.oracle(x, layer.weight.data().asnumpy(), padding=1)
    if make != "stack":
        assert (np.abs(expected - true) <= bound).all()
