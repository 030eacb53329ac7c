"""Models of sequences (N, C, L) and of volumes (N, C, D, H, W): by hand, in each framework, and from one to another."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import with_models
from making import built, kernel, run

from convlab import compare, load, port, save
from convlab.errors import ModelError, ModelFileError, UnsupportedError
from convlab.models.adapters import models_of
from convlab.models.files.neutral import read_layers, write_layers
from convlab.models.layers.activations import Activation, PReLU
from convlab.models.layers.channels import ChannelShuffle, Chunk
from convlab.models.layers.flattening import Unflatten
from convlab.models.layers.folded import convolution
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Pad
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm
from convlab.models.layers.pixels import Crop, Upsample
from convlab.models.layers.pooling import AdaptivePool, GlobalPool, Pool
from convlab.models.layers.spatial import padding_in
from convlab.models.layers.transposed import TransposedConvolution, transposed_convolution

SIZES = {1: (9,), 3: (5, 6, 4)}
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


def conv(outputs, per_group, size, *, bias=True, **options):
    return convolution(
        kernel((outputs, per_group, *size)), kernel((outputs,), 1) if bias else None, "float32", **options
    )


def up(inputs, outputs, size, *, bias=True, stride=(), crop=(), dilation=(), groups=1):
    weights, shift = kernel((inputs, outputs // groups, *size)), kernel((outputs,), 1) if bias else None
    return transposed_convolution(weights, shift, stride, crop, dilation, groups)


CONVOLUTIONS = {
    "plain": conv(4, 2, (3,), padding=((1, 1),)),
    "uneven": conv(4, 1, (4,), bias=False, groups=2, stride=(2,), padding=((1, 2),), dilation=(2,)),
    "same": conv(3, 2, (4,), stride=(3,), padding="same"),
    "reflected": conv(3, 2, (3,), padding=((2, 1),), padding_mode="reflect"),
    "volume": conv(4, 2, (3, 2, 1), stride=(2, 1, 2), padding=((1, 1), (0, 1), (0, 0)), dilation=(1, 2, 1)),
    "depthwise": conv(4, 1, (2, 3, 3), groups=2, padding="same", bias=False),
    "around": conv(3, 2, (3, 3, 2), padding=((1, 2), (1, 0), (1, 1)), padding_mode="circular"),
    "filled": conv(3, 2, (3, 1, 2), padding=((2, 1), (0, 0), (1, 0)), padding_value=0.5),
}


def by_hand(layer, x):
    """The convolution by its definition: each number of the result is a sum of products."""
    spec = layer.spec
    pads = ((0, 0), (0, 0), *padding_in(spec, x.shape[2:]))
    constant = {"constant_values": spec.padding_value} if spec.padding_mode == "zeros" else {}
    padded = np.pad(x.astype(float), pads, mode=MODES[spec.padding_mode], **constant)
    outputs, inputs = len(layer.kernel), layer.kernel.shape[1]
    axes = zip(padded.shape[2:], spec.kernel_size, spec.stride, spec.dilation, strict=True)
    size = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in axes]
    result = np.zeros((len(x), outputs, *size))
    for n, o, *place in np.ndindex(result.shape):
        first = o // (outputs // spec.groups) * inputs
        for c, *tap in np.ndindex(layer.kernel.shape[1:]):
            at = (p * s + t * d for p, s, t, d in zip(place, spec.stride, tap, spec.dilation, strict=True))
            result[(n, o, *place)] += padded[(n, first + c, *at)] * float(layer.kernel[(o, c, *tap)])
    return result if layer.bias is None else result + layer.bias.astype(float).reshape(-1, *[1] * len(size))


def image_of(layer, seed=0):
    return np.random.default_rng(seed).normal(size=(2, 2, *SIZES[layer.kernel.ndim - 2])).astype("float32")


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_by_hand(name) -> None:
    """The gradients of a layer that is linear: along an image and a kernel they are what it gives for these."""
    layer, rng = CONVOLUTIONS[name], np.random.default_rng(3)
    x = image_of(layer)
    expected = by_hand(layer, x)
    np.testing.assert_allclose(layer.reference(x), expected, rtol=1e-12, atol=1e-13)
    assert layer.output_size(x.shape[2:]) == expected.shape[2:]
    linear = replace(layer, bias=None, spec=replace(layer.spec, use_bias=False))
    without_value = replace(linear, spec=replace(linear.spec, padding_value=0.0))
    check_gradients(
        layer,
        x,
        rng.normal(size=expected.shape),
        along_image=lambda image: by_hand(without_value, image),
        along_kernel=lambda weights: by_hand(replace(linear, kernel=weights), x),
        most=1e-3,
    )


def check_gradients(layer, x, dy, along_image, along_kernel, most) -> None:
    """Gradients by dy, whose bounds are at most this share, of what is linear in images and in kernels."""
    rng = np.random.default_rng(4)
    image, weights = rng.normal(size=x.shape), rng.normal(size=layer.kernel.shape)
    true, bounds = layer.gradients(x, dy, "float32")
    np.testing.assert_allclose((true["X"] * image).sum(), (dy * along_image(image)).sum(), rtol=1e-9)
    np.testing.assert_allclose((true["K"] * weights).sum(), (dy * along_kernel(weights)).sum(), rtol=1e-9)
    np.testing.assert_allclose(true["bias"], dy.sum((0, *range(2, dy.ndim))), rtol=1e-9)
    for name, each in true.items():
        assert (np.abs(each.astype("float32") - each) <= bounds[name]).all()
        assert bounds[name].max() < most * np.abs(each).max()


TRANSPOSED = {
    "doubled": up(2, 3, (2,), stride=(2,)),
    "cropped": up(2, 4, (5,), stride=(3,), crop=((2, 1),), groups=2),
    "longer": up(2, 3, (3,), bias=False, stride=(2,), crop=((1, -2),), dilation=(2,)),
    "volume": up(2, 3, (3, 2, 1), stride=(2, 1, 3), crop=((1, 0), (0, 1), (0, 0)), dilation=(1, 2, 1)),
    "depthwise": up(2, 4, (2, 3, 2), bias=False, stride=(2, 2, 2), crop=((0, 0), (1, -1), (0, 0)), groups=2),
}


def transposed_by_hand(layer, x):
    """The definition: each number of x adds the kernel, times itself, to the result."""
    inputs, per_group, *size = layer.kernel.shape
    axes = zip(x.shape[2:], size, layer.stride, layer.dilation, layer.crop, strict=True)
    whole = [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d, _ in axes]
    # Room for what is added behind the whole result.
    result = np.zeros((len(x), per_group * layer.groups, *(n + 3 for n in whole)))
    for n, c, *place in np.ndindex(x.shape):
        for o, *tap in np.ndindex(layer.kernel.shape[1:]):
            at = (p * s + t * d for p, s, t, d in zip(place, layer.stride, tap, layer.dilation, strict=True))
            output = c // (inputs // layer.groups) * per_group + o
            result[(n, output, *at)] += float(x[(n, c, *place)]) * float(layer.kernel[(c, o, *tap)])
    inside = (slice(before, n - after) for n, (before, after) in zip(whole, layer.crop, strict=True))
    result = result[(..., *inside)]
    return result if layer.bias is None else result + layer.bias.astype(float).reshape(-1, *[1] * len(size))


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions_by_hand(name) -> None:
    layer, rng = TRANSPOSED[name], np.random.default_rng(3)
    x = image_of(layer)
    expected = transposed_by_hand(layer, x)
    np.testing.assert_allclose(layer.reference(x), expected, rtol=1e-12, atol=1e-13)
    assert layer.output_size(x.shape[2:]) == expected.shape[2:]
    error = layer.error(x, np.zeros_like(x), "float32")
    assert (np.abs(expected.astype("float32") - expected) <= error).all()
    assert error.max() < 1e-4 * np.abs(expected).max()
    linear = replace(layer, bias=None)
    check_gradients(
        layer,
        x,
        rng.normal(size=expected.shape),
        along_image=lambda image: transposed_by_hand(linear, image),
        along_kernel=lambda weights: transposed_by_hand(replace(linear, kernel=weights), x),
        most=1e-2,
    )


def norm(channels, rank):
    mean, variance, scale, shift = (np.abs(kernel((channels,), seed)) + 0.5 for seed in range(4))
    return BatchNorm(mean, variance, scale, shift, 1e-3, 0.9, rank=rank)


def layers_of(rank):
    """Layers that every framework has, for images of 4 channels."""
    both, ones = (kernel((4,), 1), kernel((4,), 2)), (1,) * rank
    return {
        "convolution": conv(6, 2, (3, 2, 2)[:rank], groups=2, stride=(2, 1, 1)[:rank]),
        "depthwise": conv(8, 1, (2,) * rank, groups=4, bias=False),
        "transposed": up(4, 4, (3, 2, 4)[:rank], stride=(2, 1, 3)[:rank]),
        "max": Pool("max", (3, 2, 2)[:rank], (2,) * rank),
        "average": Pool("average", (2,) * rank, ones),
        "largest": GlobalPool("max", rank=rank),
        "norm": norm(4, rank),
        "group": GroupNorm(*both, 2, 1e-3, rank=rank),
        "layer": LayerNorm(*both, 1e-3, rank=rank),
        "scale": ChannelAffine(*both, trained=True, rank=rank),
        "prelu": PReLU(kernel((4,), 3), rank=rank),
        "border": Pad(((2, 0), (1, 1), (0, 1))[:rank]),
        "crop": Crop(((2, 0), (1, 1), (0, 1))[:rank]),
        "upsampled": Upsample((2, 3, 1)[:rank], "nearest"),
        "chunk": Chunk(1, 2),
        "shuffle": ChannelShuffle(2),
    }


@pytest.mark.parametrize("rank", SIZES)
def test_layers_are_built_run_and_read(framework, rank) -> None:
    models = models_of(framework)
    x = np.random.default_rng(0).normal(size=(2, 4, *SIZES[rank])).astype("float32")
    for name, layer in layers_of(rank).items():
        natives = models.build(layer, "builtin")
        result, true = models.run(natives, x, "float32"), layer.reference(x.astype(float))
        assert result.shape == true.shape, name
        assert (np.abs(result - true) <= layer.error(x, np.zeros_like(x), "float32")).all(), name
        if isinstance(layer, Convolution):
            np.testing.assert_allclose(true, by_hand(layer, x), rtol=1e-12, atol=1e-13)
        if isinstance(layer, TransposedConvolution):
            np.testing.assert_allclose(true, transposed_by_hand(layer, x), rtol=1e-12, atol=1e-13)
        (again,) = (part.layer for native in natives for part in models.read(native).parts)
        for each in fields(layer):
            if each.name != "rank":  # a lone layer may not tell it
                np.testing.assert_array_equal(getattr(again, each.name), getattr(layer, each.name), name)


def network(rank):
    return [
        conv(4, 2, (3,) * rank, padding=((1, 1),) * rank),
        norm(4, rank),
        Activation("relu"),
        Pool("max", (2,) * rank, (2,) * rank),
        conv(6, 4, (2,) * rank, padding=((1, 0),) * rank),
        Dropout(0.2, channels=True, rank=rank),
        PReLU(kernel((6,), 3), rank=rank),
        GlobalPool("average", keepdims=False, rank=rank),
        Dense(kernel((6, 6), 4), kernel((6,), 5)),
        Unflatten((1,) * rank),
        conv(3, 6, (1,) * rank),
    ]


@pytest.mark.parametrize("rank", SIZES)
def test_models_go_to_another_framework(framework, rank, request, tmp_path) -> None:
    names = [name for name in with_models(request.config) if name != "numpy"]
    other = names[(names.index(framework) + 1) % len(names)]
    layers = network(rank)
    layers = layers if rank == 1 else layers[1:5]  # compiling takes long
    model = built(framework, *layers)
    ported = port(model, to=other)
    assert ported.evidence.same
    assert [row.kind for row in ported.evidence.rows].count(f"conv{rank}d") == (3 if rank == 1 else 1)
    x = np.random.default_rng(7).normal(size=(2, 2 if rank == 1 else 4, *(8,) * rank)).astype("float32")
    first, second = run(framework, model, x), run(other, ported.model, x)
    assert first.shape == ((2, 3, 1) if rank == 1 else (2, 6, 4, 4, 4))
    np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-6)
    for name, each in (("a", model), ("b", ported)):
        save(each, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    np.testing.assert_array_equal(run(other, load(tmp_path / "a.safetensors", backend=other), x), second)
    assert "Model" in ported.source() or "build" in ported.source()


def test_a_fault_is_found_and_named(framework) -> None:
    layer = conv(3, 2, (4,), padding=((1, 1),))
    other = replace(layer, kernel=layer.kernel[..., ::-1].copy())
    comparison = compare(built(framework, layer, Activation("relu")), built(framework, other, Activation("relu")))
    assert not comparison.same
    assert "kernel flipped" in comparison.first.diagnosis
    assert "image of one row" in comparison.first.diagnosis


def test_files(tmp_path) -> None:
    for rank in SIZES:
        layers = [*layers_of(rank).values()]
        layers = [each for each in layers if each.kind not in ("conv1d", "conv3d", "chunk", "dropout")]
        layers = [conv(4, 3, (2,) * rank, stride=(2,) * rank, padding="same"), *layers]
        write_layers(layers, path := tmp_path / "m.safetensors")
        for before, after in zip(layers, read_layers(path), strict=True):
            assert type(before) is type(after)
            told = before.kind in ("global_pool", "batch_norm")  # whose number of axes the file has
            for each in fields(before):
                if each.name != "rank" or told:
                    np.testing.assert_array_equal(getattr(after, each.name), getattr(before, each.name))


def test_files_of_several_ranks_are_refused(tmp_path) -> None:
    with pytest.raises(ModelFileError, match="got sequences, expected images"):
        write_layers([conv(4, 3, (2,)), Pool("max", (2, 2), (2, 2))], tmp_path / "m.safetensors")


def test_what_goes_wrong_is_said(framework) -> None:
    model = built(framework, conv(2, 1, (9,)), Pool("max", (4,), (4,)))
    with pytest.raises(ModelError, match=r"the image doesn't go through: K: got a kernel of width 9 .* of width 5"):
        port(model, to=framework, input_size=5)
    with pytest.raises(Exception, match=r"input_size: got \(5, 5\), expected an int or 1 of them, for sequences"):
        port(model, to=framework, input_size=(5, 5))
    with pytest.raises(ModelError, match=r"inputs: got shape \(1, 1, 20, 20\), expected \(N, C, L\)"):
        port(model, to=framework, inputs=np.zeros((1, 1, 20, 20)))


def test_convlabs_own_layer_is_for_images(framework) -> None:
    for to in (framework, "numpy"):
        with pytest.raises(UnsupportedError, match="Conv2D is for images, this convolution for sequences"):
            port(built(framework, conv(2, 1, (3,))), to=to, layers="convlab")


def test_adaptive_pooling(framework) -> None:
    layer, x = AdaptivePool("average", (3,)), np.arange(7.0).reshape(1, 1, 7)
    np.testing.assert_array_equal(layer.reference(x), [[[1, 3, 5]]])  # of 0 to 2, of 2 to 4, of 4 to 6
    if framework == "mxnet":
        with pytest.raises(UnsupportedError, match="adaptive pooling to 3 pixels"):
            models_of(framework).build(layer, "builtin")
        return
    (native,) = models_of(framework).build(layer, "builtin")
    np.testing.assert_array_equal(models_of(framework).run([native], x, "float32"), [[[1, 3, 5]]])
