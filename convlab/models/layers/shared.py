"""Layers that a model calls several times, which are built once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from .layer import Layer
from .reading import Part

Key = tuple[str, str]


class SharedLayers:
    """The native layers of those with arrays that a model calls several times.

    Args:
        parts: those of the model; calls of a layer have the same native layer, or the same path.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._paths: dict[int, str] = {}
        self._calls = Counter(map(self._key, parts))
        self._built: dict[Key, tuple[Layer, list[Any]]] = {}

    def built(self, part: Part, layer: Layer, build: Callable[[], list[Any]]) -> list[Any]:
        """The native layers of a part, which are those of an earlier call if that was of the same layer.

        Args:
            part: of the model.
            layer: what the part is in the target, where for instance a padding may depend on the image's size.
            build: makes them.
        """
        key = self._key(part)
        if not layer.arrays or self._calls[key] == 1:
            return build()
        before = self._built.get(key)
        if before is not None and is_same_layer(layer, before[0]):
            return before[1]
        natives = build()
        self._built.setdefault(key, (layer, natives))
        return natives

    def again(self, parts: Sequence[Part]) -> dict[str, str]:
        """The first call of each layer that is called again, by the value of a later call with the same arrays."""
        first: dict[Key, Part] = {}
        later: dict[str, str] = {}
        for part in parts:
            if part.layer is None or not part.layer.arrays:
                continue
            before = first.setdefault(self._key(part), part)
            if before is not part and before.layer is not None and is_same_layer(before.layer, part.layer):
                later[part.value] = before.value
        return later

    def _key(self, part: Part) -> Key:
        path = part.path if part.native is None else self._paths.setdefault(id(part.native), part.path)
        return path, type(part.layer).__name__


def is_same_layer(one: Layer, other: Layer) -> bool:
    """Whether two layers compute the same with the same arrays.

    >>> from convlab.models.layers.layer import Dense
    >>> weights = np.ones((2, 3))
    >>> is_same_layer(Dense(weights), Dense(weights.copy())), is_same_layer(Dense(weights), Dense(weights + 1))
    (True, False)
    """
    if type(one) is not type(other):
        return False
    values = ([getattr(layer, each.name) for each in fields(layer)] for layer in (one, other))  # type: ignore[arg-type]
    return all(mine is theirs or np.array_equal(mine, theirs) for mine, theirs in zip(*values, strict=True))
