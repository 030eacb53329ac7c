"""Adaptive pooling: convlab's layer, and Keras's own, which take images of known sizes alone, read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import Layer
from convlab.models.layers.pooling import AdaptivePool, GlobalPool, Pool, average_of_inside

from ..pooling_layers import AdaptivePooling, PaddedAverage

_NAMES = {"max": "AdaptiveMaxPooling", "average": "AdaptiveAveragePooling"}
# Those of one axis, of two and of three; none before Keras 3.15.
_KERAS = {
    (function, rank): getattr(kl, f"{name}{rank}D")
    for function, name in _NAMES.items()
    for rank in (1, 2, 3)
    if hasattr(kl, f"{name}{rank}D")
}


def _read(function: str, rank: int) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        size = (m.output_size,) * rank if isinstance(m.output_size, int) else tuple(m.output_size)
        if None in size:
            raise UnsupportedError(f"it keeps the image's rows or columns, {size}")
        return GlobalPool(function, rank=rank) if max(size) == 1 else AdaptivePool(function, size)

    return read


def _build(layer: AdaptivePool, style: str) -> list[kl.Layer]:
    return [AdaptivePooling(layer.function, layer.size, len(layer.size), autocast=False)]


def padded_average(layer: Pool) -> list[kl.Layer]:
    """The layer of convlab's for means with a border that Keras's own hasn't got."""
    padding = layer.whole_padding or layer.padding
    return [PaddedAverage(layer.size, layer.stride, padding, len(layer.size), autocast=False)]


def _read_padded(m: PaddedAverage) -> Layer:
    if m.padding == "same":
        return Pool("average", m.pool_size, m.strides, "same", count_padding=True)
    return average_of_inside(m.pool_size, m.strides, m.padding)


READERS: dict[type, Callable[[Any], Layer]] = {
    PaddedAverage: _read_padded,
    AdaptivePooling: lambda m: AdaptivePool(m.function, m.size),
    **{kind: _read(*key) for key, kind in _KERAS.items()},
}
BUILDERS: dict[type[Layer], Callable[[Any, str], list[kl.Layer]]] = {AdaptivePool: _build}
