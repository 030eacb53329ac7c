"""A model as steps that can be laid beside another's: frameworks cut the same computation into layers differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...geometry.geometry import NO_PADDING, Pair
from .layer import LOWEST, BatchNorm, Convolution, Dense, Dropout, Flatten, Layer, Pad
from .pooling import GlobalPool
from .reading import Model, Part

WEIGHTED = (Convolution, BatchNorm, Dense)


@dataclass(frozen=True, eq=False)
class Step:
    """Layers that only mean something together: a border and what it is for, a flattening and its dense layer.

    Attributes:
        path: of the layer that it is about.
        layers: what they compute, one after another.
        natives: the framework's own, one after another.
    """

    path: str
    layers: tuple[Layer, ...]
    natives: tuple[Any, ...]

    @property
    def main(self) -> Layer:
        """The layer that it is about."""
        return next((each for each in self.layers if not isinstance(each, (Pad, Flatten))), self.layers[-1])

    @property
    def dtype(self) -> str:
        """What it computes in."""
        main = self.main
        return str(main.spec.dtype if isinstance(main, Convolution) else getattr(main, "dtype", "float32"))

    @property
    def convolution(self) -> Convolution | None:
        """The one convolution that all of it is, if it is one."""
        main = self.main
        if not isinstance(main, Convolution) or len(self.layers) > 2:
            return None
        if len(self.layers) == 1:
            return main
        pad, spec = self.layers[0], main.spec
        if not isinstance(pad, Pad) or pad.mode == LOWEST or isinstance(spec.padding, str):
            return None
        both_zeros = pad.mode == spec.padding_mode == "zeros"
        if spec.padding != NO_PADDING and not both_zeros:
            return None
        rows, columns = ((p[0] + q[0], p[1] + q[1]) for p, q in zip(pad.pads, spec.padding, strict=True))
        return replace(main, spec=replace(spec, padding=(rows, columns), padding_mode=pad.mode))

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

    def output_size(self, size: Pair) -> Pair:
        """See `Layer.output_size`."""
        for layer in self.layers:
            size = layer.output_size(size)
        return size


def steps(model: Model) -> list[Step]:
    """A model's steps, all of whose layers are known; what does nothing in inference is left out."""
    found: list[Step] = []
    waiting: list[Part] = []
    for part in model.parts:
        layer = part.layer
        if layer is None or isinstance(layer, Dropout):
            continue
        if isinstance(layer, Flatten) and found and not waiting and isinstance(found[-1].main, GlobalPool):
            last = found.pop()
            found.append(Step(last.path, (*last.layers, layer), (*last.natives, part.native)))
            continue
        waiting.append(part)
        if not isinstance(layer, (Pad, Flatten)):
            found.append(_step(waiting))
            waiting = []
    return [*found, _step(waiting)] if waiting else found


def weighted(model: Model) -> list[Step]:
    """The steps that have weights, each by itself, of a model whose layers may do more than follow one another."""
    if model.whole:
        return [each for each in steps(model) if isinstance(each.main, WEIGHTED)]
    return [_step([part]) for part in model.parts if isinstance(part.layer, WEIGHTED)]


def _step(parts: Sequence[Part]) -> Step:
    layers = [part.layer for part in parts if part.layer is not None]
    return Step(parts[-1].path, tuple(layers), tuple(part.native for part in parts))
