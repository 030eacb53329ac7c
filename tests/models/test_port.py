"""Every ordered pair of frameworks: what is ported computes what the definition says."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from making import built, convolution, kernel, run

from convlab import compare, port
from convlab.errors import GeometryError, ModelError, UnknownBackendError, UnsupportedError
from convlab.models.layers.activations import Activation, Softmax
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.layer import BatchNorm, Dense, Dropout
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.testing import error_bound, worst_ratio
from convlab.truth.oracle import oracle

# Each case is a layer and the size of an image; the frameworks disagree about these.
CONVOLUTIONS = {
    "7x7, stride 2, padding 3": (convolution(8, 3, (7, 7), stride=2, padding=3), (16, 17)),
    "same, stride 2": (convolution(4, 3, (3, 3), stride=2, padding="same"), (8, 9)),
    "even kernel, same": (convolution(4, 3, (4, 2), padding="same"), (8, 9)),
    "dilated, asymmetric": (convolution(4, 3, (3, 2), dilation=(2, 1), padding=((2, 1), (0, 3))), (9, 8)),
    "depthwise, two each": (convolution(6, 1, (3, 3), groups=3, stride=2, padding=1), (9, 8)),
    "groups, no bias, one row": (convolution(4, 2, (1, 5), groups=2, bias=False, padding=(0, 2)), (7, 6)),
}
MODES = {
    "reflect": (convolution(4, 3, (3, 3), padding=1, padding_mode="reflect"), (8, 9)),
    "replicate": (convolution(4, 3, (3, 3), padding=((2, 0), (1, 1)), padding_mode="replicate"), (8, 9)),
    "circular": (convolution(4, 3, (3, 3), padding=1, padding_mode="circular"), (8, 9)),
    "symmetric": (convolution(4, 3, (3, 3), padding=((2, 1), (0, 1)), padding_mode="symmetric"), (8, 9)),
    "-1.5": (convolution(4, 3, (3, 3), padding=1, padding_value=-1.5), (8, 9)),
}


def style(name):
    return "convlab" if name == "numpy" else "builtin"


def holds(target, model, layer, size, dtype="float32"):
    x = np.random.default_rng(1).normal(size=(2, layer.spec.in_channels, *size)).astype("float32").astype(float)
    options = {"bias": layer.bias, **layer.spec.geometry}
    bound = error_bound(x, layer.kernel, dtype=dtype, **options)
    return worst_ratio(run(target, model, x, dtype), oracle(x, layer.kernel, **options), bound) <= 1


def needs_size(name):
    """Whether its own convolution takes integers for padding only."""
    return name in ("torch", "mxnet")


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(source, target, case):
    layer, size = CONVOLUTIONS[case]
    by_name = isinstance(layer.spec.padding, str) and layer.spec.stride != (1, 1)
    original = built(source, layer, style="convlab" if by_name and needs_size(source) else style(source))
    ported = port(original, to=target, input_size=size)
    assert ported.evidence.same
    assert holds(target, ported.model, layer, size)


@pytest.mark.parametrize("case", MODES)
def test_padding_modes(source, target, case):
    layer, size = MODES[case]
    original = built(source, layer, style="convlab")
    own = {
        "mxnet": ("reflect", "replicate", "-1.5"),
        "torch": ("reflect", "replicate", "circular", "-1.5"),
    }.get(target, tuple(MODES))
    if case not in own:
        with pytest.raises(UnsupportedError, match=case):
            port(original, to=target)
    ported = port(original, to=target, layers="builtin" if case in own else "convlab")
    assert holds(target, ported.model, layer, size)


def test_convlabs_layers_pad_by_the_image(source, target):
    layer, size = CONVOLUTIONS["same, stride 2"]
    original = built(source, layer, style="convlab")
    if needs_size(target):
        with pytest.raises(UnsupportedError, match=r"needs the image's size.*Hint: give input_size="):
            port(original, to=target)
    ported = port(original, to=target, layers="convlab")
    assert all(holds(target, ported.model, layer, each) for each in (size, (9, 8), (5, 12)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(source, target, dtype):
    layer = convolution(4, 2, (3, 3), padding=1, dtype=dtype)
    lacking = {"mxnet": ("float16", "bfloat16")}
    if importlib.util.find_spec("ml_dtypes") is None:  # JAX and TensorFlow bring ml_dtypes.
        lacking["numpy"] = ("bfloat16",)
    if dtype in lacking.get(source, ()):
        with pytest.raises(UnsupportedError, match=dtype):
            built(source, layer, style=style(source))
        return
    original = built(source, layer, style=style(source))
    if dtype in lacking.get(target, ()):
        with pytest.raises(UnsupportedError, match=dtype):
            port(original, to=target)
        return
    ported = port(original, to=target)
    assert ported.evidence.same
    assert holds(target, ported.model, layer, (6, 5), dtype)


def test_the_proof_of_a_wide_layer_in_half_precision_says_something(framework):
    if framework == "mxnet":
        with pytest.raises(UnsupportedError, match="float16"):
            built(framework, convolution(64, 64, (3, 3), dtype="float16"))
        return
    for dtype in ("float16", "bfloat16"):
        layer = convolution(64, 64, (3, 3), padding=1, dtype=dtype)
        wrong = convolution(64, 64, (3, 3), padding=((0, 2), (1, 1)), dtype=dtype)
        original, other = built(framework, layer), built(framework, wrong)
        assert port(original, to=framework).evidence.same
        comparison = compare(original, other)
        assert not comparison.same
        assert comparison.first.errors["gradient of X"] > 1
        assert comparison.first.errors["gradient of K"] > 1


def stack():
    rng = np.random.default_rng(2)
    norm = [rng.normal(size=4).astype("float32"), rng.uniform(0.5, 2, 4).astype("float32")]
    norm += [rng.normal(size=4).astype("float32"), rng.normal(size=4).astype("float32")]
    return [
        convolution(4, 3, (3, 3), stride=2, padding=1),
        BatchNorm(*norm, epsilon=1e-3, momentum=0.9),
        Activation("relu"),
        Pool("max", (2, 2), (2, 2)),
        convolution(6, 4, (3, 3), padding=1, bias=False),
        Activation("leaky_relu", 0.2),
        Pool("average", (2, 2), (1, 1)),
        Dropout(0.5),
        GlobalPool("average"),
        Flatten("CHW"),
        Dense(kernel((5, 6)), kernel((5, 1))[:, 0]),
    ]


def ordered(name, layers):
    """The layers with the framework's own order of pixels, which makes no difference for one pixel."""
    order = "CHW" if name in ("torch", "mxnet") else "HWC"
    return [Flatten(order) if isinstance(each, Flatten) else each for each in layers]


def test_stacks(giver, taker):
    ported = port(built(giver, *ordered(giver, stack())), to=taker)
    assert ported.evidence.same
    assert not ported.untouched
    assert ported.evidence.whole_model_errors == (0, 0)
    x = np.random.default_rng(3).normal(size=(2, 3, 24, 21)).astype("float32").astype(float)
    off, true = np.zeros_like(x), x
    for layer in stack():
        off, true = layer.error(true, off, "float32"), layer.reference(true)
    assert worst_ratio(run(taker, ported.model, x), true, off) <= 1


def test_pixels_are_flattened_in_the_targets_order(giver, taker):
    channels, size = 4, (6, 5)
    first, dense = convolution(channels, 3, (3, 3), padding=1), kernel((7, channels * 30))
    images = (channels, *size)
    order = ordered(giver, [Flatten()])[0].order
    mine = dense if order == "CHW" else dense.reshape(7, *images).transpose(0, 2, 3, 1).reshape(7, -1)
    ported = port(built(giver, first, Flatten(order), Dense(mine)), to=taker, input_size=size)
    x = np.random.default_rng(3).normal(size=(2, 3, *size)).astype("float32").astype(float)
    maps = first.reference(x)
    layer = Dense(dense)
    bound = layer.error(maps.reshape(2, -1), first.error(x, 0 * x, "float32").reshape(2, -1), "float32")
    assert worst_ratio(run(taker, ported.model, x), layer.reference(maps.reshape(2, -1)), bound) <= 1


@pytest.mark.parametrize("log", [False, True])
def test_a_softmax_at_the_end(giver, taker, log):
    dense = Dense(kernel((5, 12)), kernel((5, 1))[:, 0])
    ported = port(built(giver, dense, Softmax(log)), to=taker)
    assert ported.evidence.same
    x = np.random.default_rng(3).normal(size=(3, 12)).astype("float32").astype(float)
    exponentials = np.exp(x @ dense.kernel.T.astype(float) + dense.bias)
    shares = exponentials / exponentials.sum(1, keepdims=True)
    assert run(taker, ported.model, x) == pytest.approx(np.log(shares) if log else shares, rel=1e-5)


def test_the_bound_of_a_share_is_finite() -> None:
    """Whatever its inputs are off by, a share is between 0 and 1."""
    x = np.array([[-800.0, 0.0, 1.0]])
    (bound,) = Softmax().error(x, np.full_like(x, 1000.0), "float32")
    assert ((bound > 0) & (bound <= 1.001)).all()
    small = np.array([[1e-3, 2e-3, 0.0]])
    shares = Softmax().reference(x)
    assert (np.abs(Softmax().reference(x + small) - shares) <= Softmax().error(x, small, "float32")).all()


def test_a_softmax_over_the_channels_of_images(giver, taker):
    first = convolution(4, 3, (1, 1))
    ported = port(built(giver, first, Softmax()), to=taker)
    x = np.random.default_rng(3).normal(size=(2, 3, 4, 5)).astype("float32").astype(float)
    exponentials = np.exp(first.reference(x))
    assert run(taker, ported.model, x) == pytest.approx(exponentials / exponentials.sum(1, keepdims=True), rel=1e-5)


def test_pixels_of_any_size_are_reordered(giver, taker):
    """The channels tell how a dense layer's columns are reordered; the image's size isn't needed."""
    order = ordered(giver, [Flatten()])[0].order
    model = built(giver, convolution(4, 3, (3, 3), padding=1), Flatten(order), Dense(kernel((7, 144))))
    x = np.random.default_rng(3).normal(size=(2, 3, 6, 6)).astype("float32")
    for options in ({}, {"input_size": 6}):
        ported = port(model, to=taker, **options)
        assert ported.evidence.same
        np.testing.assert_allclose(run(taker, ported.model, x), run(giver, model, x), rtol=1e-4, atol=1e-5)


def test_what_cant_be_ported_is_refused(source):
    layer = built(source, convolution(4, 3, (3, 3)), style=style(source))
    with pytest.raises(UnknownBackendError):
        port(layer, to="caffe")
    with pytest.raises(GeometryError, match="layers"):
        port(layer, to="numpy", layers="mine")
    for strange in (3, "model", np.ones(3), None, object()):
        with pytest.raises(ModelError, match="expected a layer or a model"):
            port(strange, to="numpy")
