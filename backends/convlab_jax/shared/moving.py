"""Functions that flax hasn't got: they move pixels and channels of images (N, H, W, C)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from convlab.models.layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle
from convlab.models.layers.flattening import Unflatten
from convlab.models.layers.layer import Layer
from convlab.models.layers.pixels import Crop, Subsample, Upsample
from convlab.models.layers.spatial import to_last

from .resizing import interpolated


def unflatten(x: Array, size: tuple[int, ...] = (1, 1), order: str = "HWC") -> Array:
    """Each row of numbers as an image of some rows and columns, whose numbers stand in an order."""
    if order == "HWC":
        return x.reshape((x.shape[0], *size, -1))
    return x.reshape((x.shape[0], -1, *size)).transpose(to_last(len(size)))


def crop(x: Array, pads: Any) -> Array:
    """The image without some rows and columns, ((top, bottom), (left, right))."""
    return x[(slice(None), *(slice(start, -end or None) for start, end in pads))]


def subsample(x: Array, start: tuple[int, int], step: tuple[int, int]) -> Array:
    """Some rows and columns of images: the first, and then each so many further on."""
    return x[:, start[0] :: step[0], start[1] :: step[1]]


def upsample(x: Array, factor: tuple[int, ...], method: str) -> Array:
    """The image with so many times as many rows and columns, or more axes, by `jax.image.resize`."""
    size = (n * times for n, times in zip(x.shape[1:-1], factor, strict=True))
    return jnp.asarray(jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), method))


@functools.partial(jax.jit, static_argnames=("factor",))
def upsample_aligned(x: Array, factor: tuple[int, ...]) -> Array:
    """The image with so many times as many rows and columns, interpolated so that the corners of both images meet."""
    return interpolated(x, [n * times for n, times in zip(x.shape[1:-1], factor, strict=True)])


def channel_slice(x: Array, start: int, stop: int = 0) -> Array:
    """Some of the channels that follow one another; a stop of 0 is behind the last."""
    return x[..., start : stop or None]


def chunk(x: Array, index: int, count: int) -> Array:
    """One of some equal parts of the channels."""
    size = x.shape[-1] // count
    return x[..., index * size : (index + 1) * size]


def channel_shuffle(x: Array, groups: int) -> Array:
    """The first channel of each group, then the second of each, and so on."""
    return jnp.reshape(x, (*x.shape[:-1], groups, -1)).swapaxes(-1, -2).reshape(x.shape)


def pixel_shuffle(x: Array, factor: int, channels_last: bool = False) -> Array:
    """The channels of each pixel as a square of pixels, in PyTorch's order or in TensorFlow's."""
    n, rows, columns, channels = x.shape
    r, c = factor, channels // factor**2
    if channels_last:
        squares = x.reshape(n, rows, columns, r, r, c).transpose(0, 1, 3, 2, 4, 5)
    else:
        squares = x.reshape(n, rows, columns, c, r, r).transpose(0, 1, 4, 2, 5, 3)
    return squares.reshape(n, rows * r, columns * r, c)


# The function that computes each layer, with the layer's fields as its arguments.
_FUNCTIONS: dict[type[Layer], tuple[Callable[..., Array], tuple[str, ...]]] = {
    Unflatten: (unflatten, ("size", "order")),
    Crop: (crop, ("pads",)),
    Subsample: (subsample, ("start", "step")),
    Upsample: (upsample, ("factor", "method")),
    ChannelSlice: (channel_slice, ("start", "stop")),
    Chunk: (chunk, ("index", "count")),
    ChannelShuffle: (channel_shuffle, ("groups",)),
    PixelShuffle: (pixel_shuffle, ("factor", "channels_last")),
}
READERS: list[tuple[Any, Callable[..., Layer]]] = [
    (upsample_aligned, lambda factor: Upsample(factor, "bilinear", align_corners=True)),
    *((function, layer) for layer, (function, _) in _FUNCTIONS.items() if layer is not Unflatten),
    (unflatten, lambda size=(1, 1), order="HWC": Unflatten(size, order)),
]


def build_moving(layer: Layer) -> Callable[..., Array] | None:
    """A function that computes a layer; None if it isn't one of these."""
    if isinstance(layer, Upsample) and layer.align_corners and layer.method == "bilinear":
        return functools.partial(upsample_aligned, factor=layer.factor)
    if isinstance(layer, Unflatten) and layer.size == (1, 1):
        return unflatten
    function, fields = _FUNCTIONS.get(type(layer), (None, ()))
    options = {name: getattr(layer, name) for name in fields}
    return None if function is None else functools.partial(function, **options)
