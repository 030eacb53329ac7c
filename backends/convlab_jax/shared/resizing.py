"""Images (N, H, W, C) resized to a size, or to that of another image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from convlab.models.layers.layer import Layer
from convlab.models.layers.resizing import Resize, ResizeLike

# The names that `jax.image.resize` has for what it knows.
_NAMES = {"nearest_exact": "nearest", "bilinear": "bilinear"}


def resize(x: Array, size: tuple[int, int], method: str) -> Array:
    """The image with so many rows and columns, by `jax.image.resize`, also smaller ones without smoothing."""
    return jnp.asarray(jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), method, antialias=False))


@functools.partial(jax.jit, static_argnames=("size", "method"))
def resize_as_torch(x: Array, size: tuple[int, int], method: str) -> Array:
    """The image with so many rows and columns as PyTorch resizes it where `jax.image.resize` does it otherwise.

    Args:
        x: the image.
        size: rows and columns.
        method: "nearest" takes row floor(i * n / m); "aligned" interpolates so that the corners of both images meet.
    """
    if method == "nearest":
        rows, columns = (jnp.arange(m) * n // m for n, m in zip(x.shape[1:3], size, strict=True))
        return x[:, rows[:, None], columns]
    return interpolated(x, size)


def interpolated(x: Array, size: Sequence[int]) -> Array:
    """The image with so many rows and columns, or more axes, interpolated so that the corners of both images meet."""

    def weights(n: int, m: int) -> Array:
        places = jnp.arange(m, dtype=x.dtype) * (n - 1) / max(m - 1, 1)
        return jnp.maximum(1 - jnp.abs(places[:, None] - jnp.arange(n, dtype=x.dtype)), 0)

    for axis, m in enumerate(size, 1):
        by_place = jnp.tensordot(x, weights(x.shape[axis], m), (axis, 1), precision="highest")
        x = jnp.moveaxis(by_place, -1, axis)
    return x


def resize_like(x: Array, like: Array, method: str, align_corners: bool = False) -> Array:
    """The image with the rows and columns of another, by a method of `convlab.models.layers.resizing`."""
    size = like.shape[1:3]
    return resize_as_torch(x, size, "aligned") if align_corners else _of_method(method)(x, size)


def _of_method(method: str) -> Callable[..., Array]:
    known = method in _NAMES
    return functools.partial(resize if known else resize_as_torch, method=_NAMES[method] if known else method)


def build_resize(layer: Layer) -> Callable[..., Array] | None:
    """The function that computes a layer; None for another one."""
    if not isinstance(layer, (Resize, ResizeLike)):
        return None
    aligned = layer.align_corners and layer.method == "bilinear"
    if isinstance(layer, ResizeLike):
        return functools.partial(resize_like, method=layer.method, align_corners=aligned)
    if aligned:
        return functools.partial(resize_as_torch, size=layer.size, method="aligned")
    return functools.partial(_of_method(layer.method), size=layer.size)


def _read_resize(size: Any, method: str) -> Layer:
    return Resize(tuple(size), next(ours for ours, theirs in _NAMES.items() if theirs == method))


def _read_as_torch(size: Any, method: str) -> Layer:
    return Resize(tuple(size), "bilinear" if method == "aligned" else method, method == "aligned")


READERS: list[tuple[Any, Callable[..., Layer]]] = [
    (resize, _read_resize),
    (resize_as_torch, _read_as_torch),
    (resize_like, ResizeLike),
]
