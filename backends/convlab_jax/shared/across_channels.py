"""Functions of images (N, H, W, C) whose channels meet, or become those of squares of pixels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from convlab.models.layers.across_channels import GatedLinearUnit, LocalResponseNorm, PartsSoftmax
from convlab.models.layers.channels import PixelUnshuffle
from convlab.models.layers.layer import Layer
from convlab.models.layers.tokens import Anchors, ConcatenatePixels, Tokens


def local_response_norm(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """x / (k + alpha / size * the sum of the squares of `size` channels about each) ** beta."""
    channels = x.shape[-1]
    squares = jnp.pad(x * x, (*((0, 0),) * (x.ndim - 1), (size // 2, (size - 1) // 2)))
    sums = functools.reduce(jnp.add, [squares[..., start : start + channels] for start in range(size)])
    return x / (k + alpha / size * sums) ** beta


def parts_softmax(x: Array, parts: int) -> Array:
    """The channels in equal parts: a softmax over the parts, for each channel of a part."""
    return jax.nn.softmax(x.reshape((*x.shape[:-1], parts, -1)), axis=-2).reshape(x.shape)


def gated_linear_unit(x: Array) -> Array:
    """The first half of the channels times the sigmoid of the second half."""
    return jax.nn.glu(x)


def pixel_unshuffle(x: Array, factor: int, channels_last: bool = False) -> Array:
    """Squares of pixels as the channels of one, in PyTorch's order or in TensorFlow's."""
    n, rows, columns, channels = x.shape
    squares = x.reshape((n, rows // factor, factor, columns // factor, factor, channels))
    order = (0, 1, 3, 2, 4, 5) if channels_last else (0, 1, 3, 5, 2, 4)
    return squares.transpose(order).reshape((n, rows // factor, columns // factor, channels * factor**2))


def anchors(x: Array, count: int) -> Array:
    """The channels of each pixel in equal parts, which become pixels side by side."""
    n, rows, columns, channels = x.shape
    return x.reshape((n, rows, columns * count, channels // count))


def concatenate_pixels(*values: Array) -> Array:
    """The pixels of images, one image after another, as images of one column."""
    return jnp.concatenate([x.reshape((x.shape[0], -1, 1, x.shape[-1])) for x in values], axis=1)


def tokens(x: Array) -> Array:
    """The pixels of images as the tokens of a sequence, (N, H * W, C)."""
    return x.reshape((x.shape[0], -1, x.shape[-1]))


# The function that computes each layer, with the layer's fields as its arguments.
_FUNCTIONS: dict[type[Layer], tuple[Callable[..., Array], tuple[str, ...]]] = {
    LocalResponseNorm: (local_response_norm, ("size", "alpha", "beta", "k")),
    PartsSoftmax: (parts_softmax, ("parts",)),
    GatedLinearUnit: (gated_linear_unit, ()),
    PixelUnshuffle: (pixel_unshuffle, ("factor", "channels_last")),
    Anchors: (anchors, ("count",)),
    ConcatenatePixels: (concatenate_pixels, ()),
    Tokens: (tokens, ()),
}
READERS: list[tuple[Any, Callable[..., Layer]]] = [(function, layer) for layer, (function, _) in _FUNCTIONS.items()]


def build_across_channels(layer: Layer) -> Callable[..., Array] | None:
    """A function that computes a layer; None if it isn't one of these."""
    function, fields = _FUNCTIONS.get(type(layer), (None, ()))
    options = {name: getattr(layer, name) for name in fields}
    return functools.partial(function, **options) if function is not None and options else function


def _called(function: Callable[..., Array], **options: Any) -> str:
    values = "all" if function is concatenate_pixels else "0"
    return f"{function.__name__}({{{values}}}{''.join(f', {name}={value!r}' for name, value in options.items())})"


EXPRESSIONS: list[tuple[Any, Callable[..., str]]] = [
    (gated_linear_unit, lambda: "jax.nn.glu({0})"),
    *((function, functools.partial(_called, function)) for function, _ in _FUNCTIONS.values()),
]
