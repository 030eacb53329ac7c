"""Small models of the kinds that people port, in no framework: `MODELS`, for `faults.py`.

Each takes images of 3 channels and `SIZE` pixels a side. A part's path is also the name of its result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convlab.models.layers.activations import Activation, Affine, Softmax
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.joining import Add, Concatenate, Multiply
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Layer
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import INPUT, Part
from convlab.models.layers.shapes import Known, known_after
from convlab.models.layers.transposed import TransposedConvolution

SIZE = 16


class Net:
    """A model that grows part by part; each method takes the names of values and returns the name of the result."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.parts: list[Part] = []
        self.known = {INPUT: Known(3, (SIZE, SIZE))}

    def put(self, layer: Layer, *inputs: str) -> str:
        """The layer's result for these values."""
        path = f"{layer.kind}{sum(part.note == layer.kind for part in self.parts) + 1}"
        self.parts.append(Part(path, None, layer, layer.kind, inputs, path))
        self.known[path] = known_after(layer, [self.known[value] for value in inputs])
        return path

    def conv(self, x: str, outputs: int, size: int = 3, *, groups: int = 1, bias: bool = True, **options: Any) -> str:
        per_group = self.known[x].channels // groups
        kernel = self._numbers((outputs, per_group, size, size), np.sqrt(2 / (per_group * size * size)))
        options.setdefault("padding", size // 2)
        shift = self._numbers((outputs,), 0.3) if bias else None
        return self.put(Convolution.of(kernel, shift, "float32", groups, **options), x)

    def depthwise(self, x: str, size: int = 3, **options: Any) -> str:
        channels = self.known[x].channels
        return self.conv(x, channels, size, groups=channels, bias=False, **options)

    def up(self, x: str, outputs: int, size: int = 3, pad: int = 1, more: int = 1) -> str:
        """A transposed convolution of stride 2, with PyTorch's padding and output_padding."""
        kernel = self._numbers((self.known[x].channels, outputs, size, size), np.sqrt(2 / (outputs * size)))
        crop = ((pad, pad - more),) * 2
        return self.put(TransposedConvolution(kernel, self._numbers((outputs,), 0.3), (2, 2), crop), x)

    def norm(self, x: str, epsilon: float = 1e-3) -> str:
        channels = self.known[x].channels
        mean, shift = self._numbers((channels,), 0.3), self._numbers((channels,), 0.3)
        variance, scale = (self.rng.uniform(0.3, 1.5, channels).astype("float32") for _ in range(2))
        return self.put(BatchNorm(mean, variance, scale, shift, epsilon, 0.9), x)

    def act(self, x: str, function: str = "relu", parameter: float = 0.0) -> str:
        return self.put(Activation(function, parameter), x)

    def pool(self, x: str, function: str = "max", size: int = 2, stride: int = 0, pad: int = 0, **options: Any) -> str:
        stride, pads = stride or size, ((pad, pad), (pad, pad))
        return self.put(Pool(function, (size, size), (stride, stride), pads, **options), x)

    def block(self, x: str, outputs: int, size: int = 3, function: str = "relu", **options: Any) -> str:
        """A convolution, batch norm and an activation."""
        return self.act(self.norm(self.conv(x, outputs, size, bias=False, **options)), function)

    def add(self, *values: str) -> str:
        return self.put(Add(), *values)

    def join(self, *values: str) -> str:
        return self.put(Concatenate(), *values)

    def squeeze(self, x: str, inner: str = "relu", outer: str = "sigmoid") -> str:
        """x with its channels scaled by a squeeze-and-excite block."""
        means = self.put(GlobalPool("average"), x)
        scales = self.act(self.conv(self.act(self.conv(means, 4, 1), inner), self.known[x].channels, 1), outer)
        return self.put(Multiply(), x, scales)

    def dense(self, x: str, outputs: int) -> str:
        inputs = self.known[x].channels
        return self.put(Dense(self._numbers((outputs, inputs), inputs**-0.5), self._numbers((outputs,), 0.3)), x)

    def flat(self, x: str) -> str:
        return self.put(Flatten(), x)

    def head(self, x: str, outputs: int = 5) -> str:
        """Class scores from the mean of each channel."""
        return self.dense(self.put(GlobalPool("average", keepdims=False), x), outputs)

    def _numbers(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        return np.asarray(self.rng.standard_normal(shape) * scale, "float32")


def chain(net: Net) -> None:
    x = net.act(net.conv(INPUT, 6))
    x = net.act(net.conv(x, 8, 5, stride=2))
    net.conv(net.act(net.conv(x, 6, dilation=2, padding=2)), 3)


def lenet(net: Net) -> None:
    x = net.pool(net.act(net.conv(INPUT, 6, 5), "tanh"), "average")
    x = net.pool(net.act(net.conv(x, 8, 3, padding=0), "tanh"), "average")
    net.dense(net.act(net.dense(net.flat(x), 12), "tanh"), 5)


def alexnet(net: Net) -> None:
    x = net.pool(net.act(net.conv(INPUT, 8, 5, stride=2)), size=3, stride=2)
    x = net.act(net.conv(x, 8, groups=2))
    x = net.put(Dropout(0.5), net.flat(net.act(net.conv(x, 6))))
    net.dense(net.act(net.dense(x, 16)), 5)


def vgg(net: Net) -> None:
    x = net.act(net.conv(net.act(net.conv(INPUT, 6)), 6))
    x = net.act(net.conv(net.act(net.conv(net.pool(x), 8)), 8))
    net.put(Softmax(), net.dense(net.put(Dropout(0.5), net.act(net.dense(net.flat(net.pool(x)), 12))), 5))


def vgg_with_norm(net: Net) -> None:
    x = net.pool(net.block(net.block(INPUT, 6), 6))
    net.dense(net.flat(net.pool(net.block(net.block(x, 8), 8))), 5)


def _basic(net: Net, x: str, channels: int, stride: int, function: str = "relu") -> str:
    short = x if stride == 1 else net.norm(net.conv(x, channels, 1, stride=stride, bias=False))
    inner = net.norm(net.conv(net.block(x, channels, function=function, stride=stride), channels, bias=False))
    return net.act(net.add(inner, short), function)


def resnet(net: Net) -> None:
    x = net.pool(net.block(INPUT, 6), size=3, stride=2, pad=1)
    net.head(_basic(net, _basic(net, x, 6, 1), 8, 2))


def preactivated(net: Net) -> None:
    x = net.conv(INPUT, 6)
    for _ in range(2):
        inner = net.conv(net.act(net.norm(x)), 6, bias=False)
        x = net.add(x, net.conv(net.act(net.norm(inner)), 6, bias=False))
    net.head(net.act(net.norm(x)))


def bottleneck(net: Net) -> None:
    x = net.block(INPUT, 8, function="leaky_relu")
    for _ in range(2):
        inner = net.norm(net.conv(net.block(net.block(x, 4, 1), 4), 8, 1, bias=False))
        x = net.act(net.add(inner, x))
    net.head(x)


def resnext(net: Net) -> None:
    x = net.block(INPUT, 8)
    inner = net.block(net.block(x, 8, 1), 8, groups=2)
    x = net.act(net.add(net.norm(net.conv(inner, 8, 1, bias=False)), x))
    net.head(net.block(x, 8, groups=4, stride=2))


def densenet(net: Net) -> None:
    x = net.conv(INPUT, 4)
    for _ in range(3):
        x = net.join(x, net.conv(net.act(net.norm(x)), 4, bias=False))
    x = net.pool(net.conv(net.act(net.norm(x)), 6, 1), "average")
    net.head(net.join(x, net.conv(net.act(net.norm(x)), 4, bias=False)))


def skips(net: Net) -> None:
    first = net.act(net.conv(INPUT, 4))
    second = net.act(net.conv(first, 4, dilation=2, padding=2))
    deep = net.act(net.conv(second, 4, dilation=4, padding=4))
    x = net.act(net.conv(net.join(deep, second), 4))
    net.act(net.conv(net.act(net.conv(net.join(x, first), 4)), 2, 1), "sigmoid")


def pyramid(net: Net) -> None:
    x = net.block(INPUT, 6, function="elu", stride=2)
    wide = [net.block(x, 4, 1)] + [net.block(x, 4, dilation=rate, padding=rate) for rate in (2, 3)]
    net.conv(net.block(net.join(*wide), 6, 1), 3, 1)


def inception(net: Net) -> None:
    x = net.pool(net.act(net.conv(INPUT, 6)), size=3, stride=2, ceil=True)
    for _ in range(2):
        branches = [
            net.act(net.conv(x, 4, 1)),
            net.act(net.conv(net.act(net.conv(x, 3, 1)), 4)),
            net.act(net.conv(net.act(net.conv(x, 3, 1)), 4, 5)),
            net.act(net.conv(net.pool(x, "average", 3, 1, 1, count_padding=True), 4, 1)),
        ]
        x = net.join(*branches)
    net.head(net.put(Dropout(0.4), x))


def squeezenet(net: Net) -> None:
    x = net.pool(net.act(net.conv(INPUT, 8, stride=2)), size=3, stride=2, ceil=True)
    for _ in range(2):
        squeezed = net.act(net.conv(x, 3, 1))
        x = net.join(net.act(net.conv(squeezed, 4, 1)), net.act(net.conv(squeezed, 4)))
    net.put(GlobalPool("average"), net.act(net.conv(net.put(Dropout(0.5), x), 5, 1)))


def senet(net: Net) -> None:
    x = net.block(INPUT, 6)
    inner = net.squeeze(net.norm(net.conv(net.block(x, 6), 6, bias=False)))
    net.head(net.act(net.add(inner, x)))


def mobilenet(net: Net) -> None:
    x = net.block(INPUT, 6, function="relu6", stride=2)
    for outputs in (8, 8):
        x = net.block(net.act(net.norm(net.depthwise(x)), "relu6"), outputs, 1, "relu6")
    net.head(x)


def inverted(net: Net) -> None:
    x = net.block(INPUT, 4, function="relu6")
    for stride in (1, 2):
        wide = net.block(x, 12, 1, "relu6")
        wide = net.act(net.norm(net.depthwise(wide, stride=stride)), "relu6")
        inner = net.norm(net.conv(wide, 4, 1, bias=False))
        x = net.add(x, inner) if stride == 1 else inner
    net.head(net.put(Dropout(0.2), x))


def hard(net: Net) -> None:
    x = net.block(INPUT, 6, function="hard_swish", stride=2)
    wide = net.act(net.norm(net.depthwise(net.block(x, 12, 1, "hard_swish"), 5)), "hard_swish")
    inner = net.norm(net.conv(net.squeeze(wide, outer="hard_sigmoid"), 6, 1, bias=False))
    net.head(net.act(net.add(inner, x), "hard_swish"))


def efficient(net: Net) -> None:
    x = net.block(net.put(Affine(0.5, -0.25), INPUT), 6, function="silu", stride=2)
    wide = net.act(net.norm(net.depthwise(net.block(x, 12, 1, "silu"))), "silu")
    inner = net.norm(net.conv(net.squeeze(wide, "silu"), 6, 1, bias=False))
    net.head(net.put(Dropout(0.2), net.add(net.put(Dropout(0.2, images=True), inner), x)))


def convnext(net: Net) -> None:
    x = net.norm(net.conv(INPUT, 6, 4, stride=4, padding=0))
    for _ in range(2):
        inner = net.act(net.conv(net.norm(net.depthwise(x, 7)), 18, 1), "gelu")
        x = net.add(x, net.put(Affine(0.5), net.conv(inner, 6, 1)))
    net.head(x)


def detector(net: Net) -> None:
    x = net.act(net.norm(net.conv(INPUT, 6, bias=False)), "leaky_relu", 0.1)
    x = net.act(net.norm(net.conv(net.pool(x), 8, bias=False)), "leaky_relu", 0.1)
    x = net.join(x, *(net.pool(x, size=size, stride=1, pad=size // 2) for size in (3, 5)))
    net.conv(net.act(net.conv(x, 8, 1), "mish"), 4, 1)


def classifier(net: Net) -> None:
    x = net.act(net.conv(INPUT, 6, padding_mode="reflect"), "selu")
    x = net.pool(net.act(net.conv(x, 6, bias=False), "softplus"), "average", 3, 2, 1)
    means = net.put(GlobalPool("max", keepdims=False), net.act(net.conv(x, 8), "gelu_tanh"))
    net.put(Softmax(log=True), net.conv(net.put(Unflatten(), means), 5, 1))


def unet(net: Net) -> None:
    first = net.act(net.conv(INPUT, 4))
    second = net.act(net.conv(net.pool(first), 6))
    x = net.up(net.act(net.conv(net.pool(second), 8)), 6, 2, 0, 0)
    x = net.up(net.act(net.conv(net.join(x, second), 6)), 4, 2, 0, 0)
    net.act(net.conv(net.act(net.conv(net.join(x, first), 4)), 2, 1), "sigmoid")


def autoencoder(net: Net) -> None:
    x = net.block(net.block(INPUT, 6, stride=2), 8, stride=2)
    x = net.act(net.norm(net.up(net.add(net.conv(x, 8, 1), x), 6)))
    net.act(net.up(x, 3, 5, 2, 1), "tanh")


MODELS: dict[str, Callable[[Net], None]] = {
    model.__name__: model
    for model in (
        *(chain, lenet, alexnet, vgg, vgg_with_norm, resnet, preactivated, bottleneck, resnext, densenet, skips),
        *(pyramid, inception, squeezenet, senet, mobilenet, inverted, hard, efficient, convnext, detector, classifier),
        *(unet, autoencoder),
    )
}


def model_parts(name: str, seed: int) -> list[Part]:
    """The parts of a model of `MODELS`, with random weights."""
    net = Net(seed)
    MODELS[name](net)
    return net.parts
