"""A model as steps that can be laid beside another's: frameworks cut the same computation into layers differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .layer import BatchNorm, Convolution, Dense, Dropout, Flatten, Layer, Pad, dtype_of, join_border
from .pooling import GlobalPool
from .reading import Model, Part

WEIGHTED = (Convolution, BatchNorm, Dense)


@dataclass(frozen=True, eq=False)
class Step:
    """Layers that only mean something together: a border and its convolution, a flattening and its dense layer.

    Attributes:
        path: the path of the main layer.
        layers: what they compute, one after another.
        natives: the framework's own layers, one after another.
    """

    path: str
    layers: tuple[Layer, ...]
    natives: tuple[Any, ...]

    @property
    def main(self) -> Layer:
        """The layer that the others belong to."""
        return next((each for each in self.layers if not isinstance(each, (Pad, Flatten))), self.layers[-1])

    @property
    def dtype(self) -> str:
        """The dtype that it computes in."""
        return dtype_of(self.main)

    @property
    def convolution(self) -> Convolution | None:
        """The one convolution that computes the same as the whole step, if there is one."""
        main = self.main
        if not isinstance(main, Convolution) or len(self.layers) > 2:
            return None
        if len(self.layers) == 1:
            return main
        border = self.layers[0]
        return join_border(border, main) if isinstance(border, Pad) else None

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        for layer in self.layers:
            x = layer.reference(x)
        return x

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        for layer in self.layers:
            off = layer.error(x, off, dtype)
            x = layer.reference(x)
        return off


def steps(model: Model) -> list[Step]:
    """A model's steps, all of whose layers are known; what does nothing in inference is left out."""
    complete: list[Step] = []
    waiting: list[Part] = []
    for part in model.parts:
        layer = part.layer
        if layer is None or isinstance(layer, Dropout):
            continue
        if isinstance(layer, Flatten) and complete and not waiting and isinstance(complete[-1].main, GlobalPool):
            last = complete.pop()
            complete.append(Step(last.path, (*last.layers, layer), (*last.natives, part.native)))
            continue
        waiting.append(part)
        if not isinstance(layer, (Pad, Flatten)):
            complete.append(_step(waiting))
            waiting = []
    return [*complete, _step(waiting)] if waiting else complete


def weighted(model: Model) -> list[Step]:
    """The steps that have weights, each by itself, of a model whose layers may do more than follow one another."""
    if model.whole:
        return [each for each in steps(model) if isinstance(each.main, WEIGHTED)]
    return [_step([part]) for part in model.parts if isinstance(part.layer, WEIGHTED)]


def _step(parts: Sequence[Part]) -> Step:
    layers = [part.layer for part in parts if part.layer is not None]
    return Step(parts[-1].path, tuple(layers), tuple(part.native for part in parts))
