"""Norms of each image, transposed convolutions, layers that move pixels and channels: built, read, run and saved."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from making import built, convolution, kernel, run

from convlab import compare, load, port, save
from convlab.errors import UnsupportedError
from convlab.models.adapters import models_of, read
from convlab.models.files.neutral import read_layers, write_layers
from convlab.models.layers.activations import Activation, PReLU
from convlab.models.layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle
from convlab.models.layers.layer import BatchNorm, Pad
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm
from convlab.models.layers.pixels import Crop, Upsample
from convlab.models.layers.transposed import TransposedConvolution

NUMBERS = kernel((8,), 1), kernel((8,), 2)
CONVOLVING = kernel((8, 3, 3, 3)), kernel((3,), 3)
LAYERS = {
    "group": GroupNorm(*NUMBERS, 4, 1e-3),
    "instance": GroupNorm(*NUMBERS, 8, 1e-5),
    "layer": LayerNorm(*NUMBERS, 1e-6),
    "scale": ChannelAffine(NUMBERS[0], None, trained=True),
    "constants": ChannelAffine(*NUMBERS),
    "prelu": PReLU(NUMBERS[0]),
    "one slope": PReLU(np.array([0.3], "float32")),
    "crop": Crop(((1, 0), (2, 3))),
    "nearest": Upsample((2, 3), "nearest"),
    "bilinear": Upsample((2, 3), "bilinear"),
    "aligned": Upsample((2, 3), "bilinear", align_corners=True),
    "chunk": Chunk(1, 4),
    "slice": ChannelSlice(3, 8),
    "last channels": ChannelSlice(-5),
    "shuffle": ChannelShuffle(4),
    "pixels": PixelShuffle(2),
    "last": PixelShuffle(2, channels_last=True),
    "same": TransposedConvolution(*CONVOLVING, (2, 2), ((0, 1), (0, 1))),
    "valid": TransposedConvolution(*CONVOLVING, (1, 2)),
    "wide": TransposedConvolution(*CONVOLVING, (4, 4), ((0, -1), (0, -1))),
    "padded": TransposedConvolution(*CONVOLVING, (2, 2), ((1, 0), (1, 1))),
    "uneven": TransposedConvolution(CONVOLVING[0], None, (2, 1), ((0, 2), (1, 0))),
}
# What a framework lacks: Keras and Flax groups; on some processors TensorFlow a dilation of transposed convolutions.
LACKED = {
    "dilated": TransposedConvolution(*CONVOLVING, (1, 1), ((2, 2), (1, 1)), (2, 1)),
    "grouped": TransposedConvolution(CONVOLVING[0], kernel((6,)), (2, 2), ((1, 0), (1, 0)), groups=2),
}
HAS = {
    "torch": ("grouped", "dilated"),
    "mxnet": ("grouped", "dilated"),
    "jax": ("grouped", "dilated"),
    "jax.nnx": ("grouped", "dilated"),
    "tensorflow": (),
}
X = np.random.default_rng(5).normal(size=(2, 8, 6, 7)).astype("float32")


def scattered(layer, x):
    """The transposed convolution by its definition: each pixel adds a copy of the kernel."""
    (down, across), (over, along) = layer.stride, layer.dilation
    outputs, inputs = layer.kernel.shape[1], len(layer.kernel) // layer.groups
    axes = zip(x.shape[2:], layer.stride, layer.kernel.shape[2:], layer.dilation, strict=True)
    size = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in axes]
    whole = np.zeros((len(x), outputs * layer.groups, size[0] + 9, size[1] + 9))
    for n, o, i, j in np.ndindex(x.shape):
        group = o // inputs
        for c, p, q in np.ndindex(layer.kernel.shape[1:]):
            place = n, group * outputs + c, i * down + p * over, j * across + q * along
            whole[place] += float(x[n, o, i, j]) * float(layer.kernel[o, c, p, q])
    whole += 0 if layer.bias is None else layer.bias.astype(float).reshape(-1, 1, 1)
    (top, bottom), (left, right) = layer.crop
    return whole[:, :, top : size[0] - bottom, left : size[1] - right]


def interpolated(layer, x):
    """Each pixel of the larger image by itself."""
    rows, columns = x.shape[2] * layer.factor[0], x.shape[3] * layer.factor[1]
    result = np.zeros((*x.shape[:2], rows, columns))
    for i, j in np.ndindex(rows, columns):
        places = []
        for place, n, factor in ((i, x.shape[2], layer.factor[0]), (j, x.shape[3], layer.factor[1])):
            if layer.method == "nearest":
                places.append([(place // factor, 1.0)])
                continue
            at = place * (n - 1) / (n * factor - 1) if layer.align_corners else (place + 0.5) / factor - 0.5
            at = min(max(at, 0), n - 1)
            low = min(int(at), n - 2)
            places.append([(low, 1 - (at - low)), (low + 1, at - low)])
        result[:, :, i, j] = sum(x[:, :, p, q] * a * b for p, a in places[0] for q, b in places[1])
    return result


def normalised(x, epsilon):
    return (x - x.mean()) / np.sqrt(x.var() + epsilon)


def by_hand(layer, x):
    """What a layer computes, written anew."""
    x, columns = x.astype(float), [np.asarray(numbers, float).reshape(-1, 1, 1) for numbers in NUMBERS]
    if isinstance(layer, GroupNorm):
        groups = [[normalised(group, layer.epsilon) for group in np.split(image, layer.groups)] for image in x]
        return np.array([np.concatenate(each) for each in groups]) * columns[0] + columns[1]
    if isinstance(layer, LayerNorm):
        result = np.zeros(x.shape)
        for n, i, j in np.ndindex(len(x), *x.shape[2:]):
            result[n, :, i, j] = normalised(x[n, :, i, j], layer.epsilon)
        return result * columns[0] + columns[1]
    if isinstance(layer, ChannelAffine):
        return x * columns[0] + (0 if layer.shift is None else columns[1])
    if isinstance(layer, PReLU):
        return np.maximum(x, 0) + np.asarray(layer.slope, float).reshape(-1, 1, 1) * np.minimum(x, 0)
    if isinstance(layer, Crop):
        return x[:, :, 1:, 2:-3]
    if isinstance(layer, ChannelSlice):
        return x[:, 3:]
    if isinstance(layer, Chunk):
        return x[:, 2:4]
    if isinstance(layer, ChannelShuffle):
        return x[:, [0, 2, 4, 6, 1, 3, 5, 7]]
    if isinstance(layer, PixelShuffle):
        result = np.zeros((len(x), 2, 12, 14))
        for c, i, j in np.ndindex(2, 2, 2):
            result[:, c, i::2, j::2] = x[:, (i * 2 + j) * 2 + c if layer.channels_last else c * 4 + i * 2 + j]
        return result
    return interpolated(layer, x) if isinstance(layer, Upsample) else scattered(layer, x)


@pytest.mark.parametrize("name", [*LAYERS, *LACKED])
def test_references_by_hand(name) -> None:
    layer = {**LAYERS, **LACKED}[name]
    expected = by_hand(layer, X)
    result = layer.reference(X.astype(float))
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-13)
    assert layer.output_size((6, 7)) == expected.shape[2:]
    assert layer.output_channels(8) == expected.shape[1]


def natives_of(models, layer):
    """The framework's layers, where it needs one more to crop the result of a transposed convolution."""
    try:
        return models.build(layer, "builtin")
    except UnsupportedError:
        if not isinstance(layer, TransposedConvolution) or layer.groups > 1:
            raise
        return [native for each in layer.cropped() for native in models.build(each, "builtin")]


def checked(framework, layer):
    models = models_of(framework)
    natives = natives_of(models, layer)
    result = models.run(natives, X, "float32")
    error = layer.error(X.astype(float), np.zeros(X.shape), "float32")
    assert result.shape == error.shape
    assert (np.abs(result - by_hand(layer, X)) <= error).all()
    assert error.max() < 1e-3  # so that another epsilon or another place of a pixel is seen
    return [part.layer for native in natives for part in models.read(native).parts]


@pytest.mark.parametrize("name", LAYERS)
def test_built_run_and_read(framework, name) -> None:
    layers = checked(framework, LAYERS[name])
    if len(layers) > 1:
        layers = [layers[0], replace(LAYERS[name], crop=layers[1].pads)][1:]
    for each in fields(LAYERS[name]):
        np.testing.assert_array_equal(getattr(layers[0], each.name), getattr(LAYERS[name], each.name))


TRANSPOSED = {name: each for name, each in {**LAYERS, **LACKED}.items() if isinstance(each, TransposedConvolution)}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_gradients_of_transposed_convolutions(name) -> None:
    """The layer is linear in the image and in the kernel: its slopes along them are what it gives for them."""
    layer, rng = TRANSPOSED[name], np.random.default_rng(2)
    x, dy = rng.normal(size=(2, 8, 5, 4)), rng.normal(size=(2, layer.output_channels(), *layer.output_size((5, 4))))
    true, bounds = layer.gradients(x, dy, "float32")
    no_bias = replace(layer, bias=None)
    image, weights = rng.normal(size=x.shape), rng.normal(size=layer.kernel.shape)
    along_image = (dy * by_hand(no_bias, image)).sum()
    along_kernel = (dy * by_hand(replace(no_bias, kernel=weights), x)).sum()
    np.testing.assert_allclose((true["X"] * image).sum(), along_image, rtol=1e-9)
    np.testing.assert_allclose((true["K"] * weights).sum(), along_kernel, rtol=1e-9)
    np.testing.assert_allclose(true["bias"], dy.sum((0, 2, 3)), rtol=1e-9)
    for name, each in true.items():
        assert (np.abs(each.astype("float32") - each) <= bounds[name]).all()
        assert bounds[name].max() < 1e-3 * np.abs(each).max()


@pytest.mark.parametrize("name", LACKED)
def test_what_a_framework_lacks_is_refused(framework, name) -> None:
    if name in HAS[framework]:
        checked(framework, LACKED[name])
    else:
        with pytest.raises(UnsupportedError):
            models_of(framework).build(LACKED[name], "builtin")


def test_files(tmp_path) -> None:
    layers = [each for name, each in LAYERS.items() if name not in ("chunk", "pixels") and hasattr(each, "scale")]
    layers += [LAYERS["shuffle"], LAYERS["bilinear"], LAYERS["crop"], LAYERS["wide"]]
    write_layers(layers, path := tmp_path / "m.safetensors")
    for before, after in zip(layers, read_layers(path), strict=True):
        assert type(before) is type(after)
        for each in fields(before):
            np.testing.assert_array_equal(getattr(after, each.name), getattr(before, each.name))


UP = TransposedConvolution(kernel((8, 8, 3, 3)), None, (2, 2), ((1, 0), (1, 0)))
# An encoder and a decoder; every framework has these layers, some with a crop beside the first transposed convolution.
DECODER = [
    convolution(8, 4, (3, 3), padding=1),
    LAYERS["group"],
    Activation("relu"),
    LAYERS["scale"],
    UP,
    LAYERS["instance"],
    TransposedConvolution(kernel((8, 8, 2, 2)), kernel((8,), 4), (2, 2)),
    LAYERS["layer"],
    LAYERS["shuffle"],
    LAYERS["prelu"],
    LAYERS["nearest"],
    LAYERS["pixels"],
    Crop(((1, 2), (0, 1))),
    convolution(3, 2, (1, 1)),
]


def test_a_decoder_is_ported_compared_and_saved(framework, backends, tmp_path) -> None:
    others = [name for name in backends if name != "numpy"]
    taker = others[(others.index(framework.partition(".")[0]) + 1) % len(others)]
    up = replace(UP, crop=((0, 1), (0, 1))) if framework == "tensorflow" else UP  # Keras has this one alone
    layers = [up if layer is UP else layer for layer in DECODER]
    model = built(framework, *layers)
    ported = port(model, to=taker)
    assert ported.evidence.same
    assert not ported.untouched
    with_gradients = [row for row in ported.evidence.rows if row.worst("gradient of K")]
    assert {row.kind for row in with_gradients} == {"conv2d", "conv_transpose2d"}
    for row in ported.evidence.rows:
        (layer,) = {type(layer): layer for layer in layers if layer.kind == row.kind}.values()
        named = [name for name in layer.arrays if getattr(layer, name) is not None]
        gradients = {"X", *("K" if name == "kernel" else name for name in named)} if named else set()
        assert gradients - {"bias"} <= {name.removeprefix("gradient of ") for name in row.errors}
    x = np.random.default_rng(1).normal(size=(1, 4, 5, 6)).astype("float32")
    expected = x.astype(float)
    for layer in layers:
        expected = layer.reference(expected)
    for name, each in ((framework, model), (taker, ported.model)):
        assert np.abs(run(name, each, x) - expected).max() < 1e-4 * np.abs(expected).max()
    save(model, a := tmp_path / "a.safetensors")
    save(ported, b := tmp_path / "b.safetensors")
    assert a.read_bytes() == b.read_bytes()
    assert compare(model, load(a, backend=taker)).same


def test_what_is_ported_has_memory_of_its_own(giver, taker) -> None:
    """The original can be trained without changing it; JAX keeps the memory of a NumPy array where it can."""
    norm = BatchNorm(*(np.linspace(0.5, 1.5, 64, dtype="float32") for _ in range(4)), 1e-3, 0.9)
    model = built(giver, convolution(64, 3, (3, 3)), norm)
    ported = port(model, to=taker)
    x = np.random.default_rng(1).normal(size=(1, 3, 6, 7)).astype("float32")
    before = run(taker, ported.model, x)
    for part in read(model).parts:
        for array in (getattr(part.layer, name) for name in part.layer.arrays):
            if array.flags.writeable:  # It is the memory of the framework's own array, or a copy.
                array *= 3
    assert np.array_equal(run(taker, ported.model, x), before)


def test_a_border_of_minus_infinity_is_saved(tmp_path) -> None:
    layers = [Pad(((0, 1), (1, 0)), "lowest"), convolution(2, 3, (1, 1))]
    write_layers(layers, path := tmp_path / "m.safetensors")
    assert read_layers(path)[0].mode == "lowest"
