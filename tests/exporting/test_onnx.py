"""ONNX files: what onnxruntime computes from them is what the layers say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from chains import CHAINS, classifier, conv, dense, norm
from making import kernel

from convlab.errors import ModelError, ModelFileError, PortError
from convlab.models.files import neutral
from convlab.models.files.onnx import nodes as onnx_nodes
from convlab.models.files.onnx import write as ours
from convlab.models.files.onnx.read import read_onnx
from convlab.models.files.save_load import load, save
from convlab.models.layers.activations import FUNCTIONS, WITH_PARAMETER, Activation, PReLU
from convlab.models.layers.channels import ChannelShuffle, Chunk, PixelShuffle
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.layer import Convolution, Dropout, Layer, Pad
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm
from convlab.models.layers.pixels import Crop, Upsample
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import parts_of
from convlab.models.layers.resizing import METHODS, Resize
from convlab.models.layers.transposed import TransposedConvolution
from convlab.testing import worst_ratio


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["Y"], {"X": x})[0]


def right(found: np.ndarray, layers: list[Layer], x: np.ndarray, dtype: str = "float32") -> bool:
    """Whether a result is the layers', within the bounds carried through them."""
    off = np.zeros_like(x)
    for layer in layers:
        off, x = layer.error(x, off, dtype), layer.reference(x)
    return worst_ratio(found, x, off) <= 1


NUMBERS = kernel((4,), 1), kernel((4,), 2)
PADDINGS = ["valid", "same", "same_lower", "full", 2, ((0, 1), (2, 0))]
NOT_IN_ONNX = "squareplus", "sparse_plus", "sparse_sigmoid"
LAYERS: dict[str, list[Layer]] = {
    **{f"padding {p} {s}": [conv(3, 2, (3, 2), padding=p, stride=s)] for p in PADDINGS for s in (1, (3, 2))},
    **{f"dilation {p}": [conv(3, 2, (3, 2), padding=p, dilation=(2, 3))] for p in PADDINGS},
    **{
        f"mode {m}": [conv(3, 2, padding=((1, 2), (0, 1)), padding_mode=m)]
        for m in ("reflect", "replicate", "circular")
    },
    "value": [conv(3, 2, padding=((1, 2), (0, 1)), padding_value=-0.75)],
    "pad value": [Pad(((1, 2), (0, 1)), value=1.25), Activation("relu")],
    **{
        f"pad {m}": [Pad(((1, 2), (0, 1)), m), Activation("relu")]
        for m in ("zeros", "reflect", "replicate", "circular")
    },
    **{
        f"function {f}": [conv(3, 2), Activation(f, 0.1 * (f in WITH_PARAMETER))]
        for f in FUNCTIONS
        if f not in NOT_IN_ONNX
    },
    **{
        f"pool {f} {p} {c} {size} {stride}": [Pool(f, size, stride, p, c and f == "average", c)]
        for f in ("max", "average")
        for p in (((0, 0), (0, 0)), ((1, 1), (1, 0)), "same", "same_lower")
        for c in (False, True)
        for size, stride in (((2, 2), (2, 2)), ((3, 2), (2, 1)))
    },
    **{f"global {f} {k}": [conv(3, 2), GlobalPool(f, k)] for f in ("max", "average") for k in (False, True)},
    **{f"flatten {o}": [conv(3, 2), Dropout(0.5), Flatten(o), dense(4, 3 * 25)] for o in ("CHW", "HWC")},
    "norm": [norm(3), conv(4, 3, groups=1), norm(4)],
    "group norm": [conv(4, 3), GroupNorm(*NUMBERS, 2, 1e-3), conv(2, 4), PReLU(NUMBERS[0][:2])],
    "instance norm": [conv(4, 3), GroupNorm(*NUMBERS, 4, 1e-3)],
    "layer norm": [conv(4, 3), LayerNorm(*NUMBERS, 1e-3)],
    "layer norm of rows": [conv(4, 3), GlobalPool("average", keepdims=False), LayerNorm(*NUMBERS, 1e-3), dense(2, 4)],
    "scale": [ChannelAffine(NUMBERS[0][:3], None, True), conv(4, 3), ChannelAffine(*NUMBERS, True)],
    "crop": [Crop(((1, 0), (2, 1))), conv(4, 3)],
    **{
        f"upsample {m} {a}": [Upsample((2, 3), m, a), conv(4, 3)]
        for m in ("nearest", "bilinear")
        for a in (False, m != "nearest")
    },
    **{
        f"resize {m} {a} {size}": [Resize(size, m, a), conv(4, 3)]
        for m in METHODS
        for a in (False, m == "bilinear")
        for size in ((5, 4), (9, 14))
    },
    "parts": [
        conv(4, 3),
        ChannelShuffle(2),
        Chunk(1, 2),
        conv(8, 2),
        PixelShuffle(2),
        PixelShuffle(1, channels_last=True),
    ],
    **{
        f"transposed {crop}": [TransposedConvolution(kernel((3, 2, 3, 3)), NUMBERS[0][:2], (2, 2), crop)]
        for crop in (((0, 0), (0, 0)), ((0, 1), (0, 1)), ((1, 0), (1, 1)), ((0, -1), (0, 0)))
    },
    "transposed by groups": [TransposedConvolution(kernel((4, 3, 2, 3)), None, (1, 2), dilation=(2, 1), groups=2)],
    **{
        f"unflatten {o}": [GlobalPool("max", keepdims=False), dense(24, 3), Unflatten((3, 2), o), conv(4, 4, padding=1)]
        for o in ("CHW", "HWC")
    },
    "rows": [Activation("tanh"), dense(3, 4), Activation("softplus"), dense(2, 3)],
}


@pytest.mark.parametrize("name", LAYERS)
def test_onnxruntime_computes_what_the_layers_say(name, tmp_path):
    layers, path = LAYERS[name], tmp_path / "model.onnx"
    ours.export(parts_of(layers), path)  # which holds it to the rounding bounds
    first = layers[0]
    channels = first.input_channels if isinstance(first, (Convolution, TransposedConvolution)) else 3
    x = np.random.default_rng(3).integers(-8, 9, (3, channels, 7, 7)) / 4.0
    if name == "rows":
        x = x[:, 0, :4, 0]
    assert right(run(path, x.astype(np.float32)), layers, x)


@pytest.mark.parametrize("chain", CHAINS)
def test_models_of_every_framework(framework, chain, tmp_path):
    neutral.write_layers(CHAINS[chain], tmp_path / "model.safetensors")
    model, path = load(tmp_path / "model.safetensors", backend=framework), tmp_path / "model.onnx"
    save(model, path)
    ours.export(parts_of(CHAINS[chain]), tmp_path / "again.onnx")
    assert path.read_bytes() == (tmp_path / "again.onnx").read_bytes()
    again = tmp_path / "again.safetensors"
    save(load(path, backend=framework), again)
    inference = [layer for layer in CHAINS[chain] if not isinstance(layer, Dropout)]
    neutral.write_layers(inference, tmp_path / "inference.safetensors")
    assert again.read_bytes() == (tmp_path / "inference.safetensors").read_bytes()


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_written_is_read_again(name, tmp_path):
    ours.export(parts_of(LAYERS[name]), tmp_path / "model.onnx")
    neutral.write_parts(read_onnx(tmp_path / "model.onnx").parts, tmp_path / "again.safetensors")
    inference = [layer for layer in LAYERS[name] if not isinstance(layer, Dropout)]
    neutral.write_layers(inference, tmp_path / "model.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes(dtype, tmp_path):
    path = tmp_path / "model.onnx"
    if dtype == "float64":
        with pytest.raises(ModelError, match=r"layer 0, conv2d: got float64 .*Conv"):
            ours.export(parts_of(classifier(dtype)), path)
        assert not path.exists()
        layers: list[Layer] = [dense(3, 4, dtype), norm(3, dtype), Activation("tanh")]
    else:
        layers = classifier(dtype)
    ours.export(parts_of(layers), path)
    x = np.random.default_rng(0).integers(-8, 9, (2, 4) if dtype == "float64" else (2, 3, 8, 9)) / 4.0
    found = run(path, x.astype(dtype))
    assert found.dtype == dtype
    assert right(found, layers, x, dtype)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([conv(4, 2), conv(3, 4, dtype="bfloat16")], "layer 1, conv2d: got dtype bfloat16"),
        ([conv(4, 2), Activation("relu"), conv(3, 4, dtype="float16")], "layer 2, conv2d: got dtype float16"),
        ([conv(4, 2), dense(3, 4)], "layer 1, dense: got images"),
        *(([conv(4, 2), Activation(f)], f"layer 1, activation: got {f}, expected") for f in NOT_IN_ONNX),
        ([Activation("softplus", 2.0)], "layer 0, activation: got softplus with the parameter 2.0"),
        ([conv(4, 2, padding="same", stride=2, padding_mode="reflect")], "layer 0, conv2d: got padding 'same'"),
        ([Activation("relu"), conv(4, 2, padding="same", stride=2, dilation=2)], "layer 1, conv2d: .*Dilation"),
    ],
)
def test_what_it_cant_express_is_named(layers, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        ours.export(parts_of(layers), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_wrong_graph_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(
        onnx_nodes, "_pads", lambda pads: [pads[0][1], pads[1][1], pads[0][0], pads[1][0]]
    )  # swapped ends
    with pytest.raises(PortError, match=r"off by .* what rounding allows"):
        ours.export(parts_of([conv(3, 2, padding=((0, 1), (2, 0)))]), tmp_path / "model.onnx")
    monkeypatch.setattr(onnx_nodes, "_pads", lambda pads: [1, 1, 1, 1])
    with pytest.raises(PortError, match="expected shape"):
        ours.export(parts_of([conv(3, 2)]), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelFileError, match=f"no package {package}.*install.* onnx onnxruntime"):
        ours.export(parts_of([conv(3, 2)]), tmp_path / "model.onnx")
