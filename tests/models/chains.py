"""Layers one after another, as the tests of files use them."""

from __future__ import annotations

import numpy as np

from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Layer
from convlab.models.layers.pooling import GlobalPool, Pool


def numbers(shape: tuple[int, ...] | int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Random numbers that the dtype has."""
    numbers = np.random.default_rng(seed).standard_normal(shape)
    if dtype != "bfloat16":
        return numbers.astype(dtype)
    return (numbers.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def conv(outputs: int, inputs: int, size=(3, 3), *, dtype="float32", bias=True, groups=1, **options) -> Convolution:
    kernel = numbers((outputs, inputs // groups, *size), dtype, seed=outputs)
    return Convolution.of(kernel, numbers(outputs, dtype, 1) if bias else None, dtype, groups, **options)


def norm(channels: int, dtype="float32") -> BatchNorm:
    mean, spread, scale, shift = (numbers(channels, dtype, seed) for seed in range(4))
    return BatchNorm(mean, abs(spread), scale, shift, 1e-3, 0.9, dtype)


def dense(outputs: int, inputs: int, dtype="float32") -> Dense:
    return Dense(numbers((outputs, inputs), dtype), numbers(outputs, dtype, 1), dtype)


def classifier(dtype="float32") -> list[Layer]:
    return [
        conv(8, 3, dtype=dtype, padding=1),
        norm(8, dtype),
        Activation("relu"),
        Pool("max", (2, 2), (2, 2)),
        conv(4, 8, (3, 2), dtype=dtype, padding=((0, 1), (1, 0)), stride=(2, 1), groups=4, bias=False),
        Activation("leaky_relu", 0.1),
        Dropout(0.3),
        GlobalPool("average", keepdims=False),
        dense(5, 4, dtype),
    ]


CONVOLUTIONS = ("convolution", "uneven", "same")
CHAINS: dict[str, list[Layer]] = {
    "classifier": classifier(),
    "convolution": [conv(4, 2)],
    "uneven": [conv(4, 2, padding=((0, 1), (2, 0)), dilation=2)],
    "same": [conv(4, 2, (3, 2), padding="same")],
    "depthwise": [conv(6, 3, groups=3, stride=2), Activation("silu")],
    "activation": [Activation("elu", 0.5)],
    "pooling": [conv(2, 1), Activation("relu"), Pool("average", (2, 2), (2, 2), ((1, 1), (1, 1)), True)],
    "dense": [dense(3, 4), Activation("tanh"), dense(2, 3)],
}
