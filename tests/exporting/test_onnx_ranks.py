"""ONNX files of models of sequences and volumes: onnxruntime runs them, and they are read again."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from making import kernel

from convlab.models.files.onnx.read import read_onnx
from convlab.models.files.onnx.write import export
from convlab.models.layers.activations import Activation, PReLU
from convlab.models.layers.folded import convolution
from convlab.models.layers.layer import BatchNorm, Dense, Pad
from convlab.models.layers.norms import GroupNorm, LayerNorm
from convlab.models.layers.pixels import Crop, Upsample
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import parts_of
from convlab.models.layers.transposed import transposed_convolution


def layers_of(rank):
    both, ones = (kernel((4,), 1), kernel((4,), 2)), (1,) * rank
    kernels = kernel((4, 2, *(3, 2, 1)[:rank])), kernel((4, 4, *(2,) * rank), 3)
    return [
        convolution(kernels[0], both[0], "float32", stride=(2, 1, 1)[:rank], padding="same"),
        Pad(((2, 1), (0, 1), (1, 0))[:rank], "replicate"),
        BatchNorm(both[0], np.abs(both[1]), *both, 1e-3, 0.9, rank=rank),
        Activation("relu"),
        Pool("average", (2,) * rank, ones, ((1, 0), (0, 1), (1, 1))[:rank], True),
        GroupNorm(*both, 2, 1e-3, rank=rank),
        PReLU(both[0], rank=rank),
        LayerNorm(*both, 1e-3, rank=rank),
        transposed_convolution(kernels[1], both[0], (2,) * rank, ((1, 0), (0, 1), (1, -1))[:rank]),
        convolution(kernels[1], None, "float32", padding=((1, 0),) * rank, padding_mode="reflect"),
        Upsample((2, 1, 3)[:rank], "bilinear"),
        Upsample((1, 2, 2)[:rank], "nearest"),
        Crop(((1, 0), (0, 0), (0, 1))[:rank]),
        GlobalPool("max", keepdims=False, rank=rank),
        Dense(kernel((3, 4)), None),
    ]


@pytest.mark.parametrize("rank", [1, 3])
def test_written_and_read(rank, tmp_path) -> None:
    layers, path = layers_of(rank), tmp_path / "m.onnx"
    export(parts_of(layers), path)
    x = np.random.default_rng(0).normal(size=(2, 2, *(6, 5, 4)[:rank])).astype("float32")
    expected = x.astype(float)
    for layer in layers:
        expected = layer.reference(expected)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["Y"], {"X": x})[0], expected, rtol=1e-3, atol=1e-4)
    again = x.astype(float)
    for part in read_onnx(path).parts:
        again = part.layer.reference(again)
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-6)
