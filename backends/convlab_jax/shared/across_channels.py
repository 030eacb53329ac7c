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


# The function that computes each layer, with the layer's fields as its arguments.
_FUNCTIONS: dict[type[Layer], tuple[Callable[..., Array], tuple[str, ...]]] = {
    LocalResponseNorm: (local_response_norm, ("size", "alpha", "beta", "k")),
    PartsSoftmax: (parts_softmax, ("parts",)),
    GatedLinearUnit: (gated_linear_unit, ()),
    PixelUnshuffle: (pixel_unshuffle, ("factor", "channels_last")),
}
READERS: list[tuple[Any, Callable[..., Layer]]] = [(function, layer) for layer, (function, _) in _FUNCTIONS.items()]


def build_across_channels(layer: Layer) -> Callable[..., Array] | None:
    """A function that computes a layer; None if it isn't one of these."""
    function, fields = _FUNCTIONS.get(type(layer), (None, ()))
    options = {name: getattr(layer, name) for name in fields}
    return None if function is None else functools.partial(function, **options)


def _called(function: Callable[..., Array], **options: Any) -> str:
    return f"{function.__name__}({{0}}{''.join(f', {name}={value!r}' for name, value in options.items())})"


EXPRESSIONS: list[tuple[Any, Callable[..., str]]] = [
    (gated_linear_unit, lambda: "jax.nn.glu({0})"),
    *((function, functools.partial(_called, function)) for function, _ in _FUNCTIONS.values()),
]
