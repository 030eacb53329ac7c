"""Adaptive pooling: convlab's layer, and Keras's own, which take images of known sizes alone, read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import Layer
from convlab.models.layers.pooling import AdaptivePool, GlobalPool

from ..pooling_layers import AdaptivePooling

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


READERS: dict[type, Callable[[Any], Layer]] = {
    AdaptivePooling: lambda m: AdaptivePool(m.function, m.size),
    **{kind: _read(*key) for key, kind in _KERAS.items()},
}
BUILDERS: dict[type[Layer], Callable[[Any, str], list[kl.Layer]]] = {AdaptivePool: _build}
