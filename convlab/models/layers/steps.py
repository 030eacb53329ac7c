"""A model as steps that can be laid beside another's: frameworks cut the same computation into layers differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .activations import Activation, Clip, Softmax
from .flattening import Flatten, Unflatten
from .joining import COMMUTATIVE, Joining
from .layer import Convolution, Dropout, Layer, Pad, dtype_of, join_border
from .outputs import Outputs
from .pixels import Crop
from .pooling import GlobalPool, Pool, join_pool
from .reading import INPUT, Model, Part, consumers, inputs_first, parts_with_arrays, without
from .slopes import Slopes
from .tokens import Tokens
from .transposed import TransposedConvolution

_Joined = TypeVar("_Joined", bound=Layer)

# What belongs to the layer before it.
_BEHIND = {Flatten: GlobalPool, Crop: TransposedConvolution}


@dataclass(frozen=True, eq=False)
class Step:
    """Layers that only mean something together: a border and its convolution, a flattening and its dense layer.

    Attributes:
        path: the path of the main layer.
        layers: what they compute, one after another.
        natives: the framework's own layers, one after another.
        inputs: the names of the values that the first layer takes.
        value: the name of the last layer's result.
    """

    path: str
    layers: tuple[Layer, ...]
    natives: tuple[Any, ...]
    inputs: tuple[str, ...] = (INPUT,)
    value: str = ""

    @property
    def main(self) -> Layer:
        """The layer that the others belong to."""
        return next((each for each in self.layers if not isinstance(each, (Pad, Flatten, Crop))), self.layers[-1])

    @property
    def dtype(self) -> str:
        """The dtype that it computes in."""
        return dtype_of(self.main)

    @property
    def convolution(self) -> Convolution | None:
        """The one convolution that computes the same as the whole step, if there is one."""
        return self._with_borders(Convolution, join_border)

    @property
    def transposed(self) -> TransposedConvolution | None:
        """The one transposed convolution that computes the same as the whole step, if there is one."""
        first, *others = self.layers
        if not isinstance(first, TransposedConvolution):
            return None
        for layer in others:
            if not isinstance(layer, Crop):
                return None
            first = first.with_crop(layer.pads)
        return first

    @property
    def pool(self) -> Pool | None:
        """The pool with the border before it as its padding, if it is a pool; see `join_pool`."""
        return self._with_borders(Pool, join_pool)

    def _with_borders(self, kind: type[_Joined], join: Callable[[Pad, _Joined], _Joined | None]) -> _Joined | None:
        """The last layer, joined with the borders before it; None where it isn't of the kind, or can't be joined."""
        *borders, main = self.layers
        joined = main if isinstance(main, kind) else None
        for border in reversed(borders):
            joined = join(border, joined) if joined is not None and isinstance(border, Pad) else None
        return joined

    @property
    def flattened(self) -> str:
        """The order in which it flattens images, one of `ORDERS`."""
        return next((each.order for each in self.layers if isinstance(each, Flatten)), "none")

    @property
    def learned(self) -> Layer | None:
        """The one layer with gradients that computes the same as the whole step, or all but a flattening before it."""
        *before, last = self.layers
        alone = last.has_gradients and all(isinstance(each, Flatten) for each in before)
        return self.convolution or self.transposed or (last if alone else None)

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`, of the layer that is `learned`."""
        assert self.learned
        flatten = self.layers[0]
        if not isinstance(flatten, Flatten) or x.ndim == 2:
            return self.learned.gradients(x, dy, dtype)
        image = Unflatten(x.shape[2:], flatten.order)
        both = self.learned.gradients(flatten.reference(x), dy, dtype)
        true, bounds = ({**each, "X": image.reference(each["X"])} for each in both)
        return true, bounds

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        first, *others = self.layers
        x = first.reference(*values)
        for layer in others:
            x = layer.reference(x)
        return x

    def error(self, values: Sequence[np.ndarray], offs: Sequence[np.ndarray], dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        first, *others = self.layers
        if isinstance(first, Joining):
            x, off = first.reference(*values), first.error(values, offs, dtype)
        else:
            x, off = first.reference(values[0]), first.error(values[0], offs[0], dtype)
        for layer in others:
            off = layer.error(x, off, dtype)
            x = layer.reference(x)
        return off


def steps(model: Model) -> list[Step]:
    """A model's steps, all of whose layers are known; what does nothing in inference is left out.

    They stand in an order that depends on the graph alone, and not on how the framework lists its layers.
    """
    parts = without(model.parts, lambda part: part.layer is None or isinstance(part.layer, Dropout))
    takers = consumers(parts)
    by_value: dict[str, Step] = {}
    waiting: dict[str, list[Part]] = {}
    for part in parts:
        source = part.inputs[0]
        together = [*waiting.pop(source, []), part] if len(part.inputs) == 1 else [part]
        main = _BEHIND.get(type(part.layer)) if len(together) == 1 and len(takers[source]) == 1 else None
        before = by_value.get(source)
        if part.layer is not None and main is not None and before is not None and isinstance(before.main, main):
            del by_value[source]
            both = (*before.layers, part.layer), (*before.natives, part.native)
            by_value[part.value] = Step(before.path, *both, before.inputs, part.value)
            continue
        after = takers.get(part.value, [])
        if isinstance(part.layer, (Pad, Flatten)) and len(after) == 1 and len(after[0].inputs) == 1:
            waiting[part.value] = together
        else:
            by_value[part.value] = _step(together)
    return _ordered(by_value, parts[-1].value) if parts else []


def _ordered(by_value: dict[str, Step], result: str) -> list[Step]:
    """The steps from a result back to the image, inputs first; of a sum, the longer way from the image first."""
    heights: dict[str, int] = {}
    for value, step in by_value.items():
        heights[value] = 1 + max(heights.get(each, 0) for each in step.inputs)

    def inputs(value: str) -> list[str]:
        step = by_value[value]
        known = [each for each in step.inputs if each in by_value]
        commutes = isinstance(step.main, COMMUTATIVE)
        return sorted(known, key=lambda each: -heights[each]) if commutes else known

    return [by_value[value] for value in inputs_first([result], inputs)]


def carried(steps: Sequence[Step], given: Mapping[str, np.ndarray], dtype: str = "") -> tuple[np.ndarray, np.ndarray]:
    """The result of steps by their definition, and how far roundings in all of them may take it from that.

    What is given are the model's inputs by name: `INPUT` of one, which is the result if there are no steps.

    Each step computes in its own dtype, or all in the given one. A bound of a deep model may be infinite or NaN.
    """
    values = {name: (x, np.zeros_like(x)) for name, x in given.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        for step in steps:
            inputs, errors = zip(*map(values.__getitem__, step.inputs), strict=True)
            values[step.value] = step.reference(*inputs), step.error(inputs, errors, dtype or step.dtype)
    return values[steps[-1].value] if steps else values[INPUT]


def values_given(steps: Sequence[Step]) -> tuple[str, ...]:
    """The values that a model gives as its results."""
    last = steps[-1]
    return last.inputs if isinstance(last.main, Outputs) else (last.value,)


def last_functions(steps: Sequence[Step], value: str) -> tuple[str, list[Step]]:
    """The value before the functions of each number and softmaxes that give a value at last, and the steps they are."""
    by_value = {step.value: step for step in steps}
    last: list[Step] = []
    while value in by_value and all(isinstance(each, _FUNCTIONS) for each in by_value[value].layers):
        last.insert(0, by_value[value])
        (value,) = last[0].inputs
    return value, last


_FUNCTIONS = (Activation, Clip, Softmax, Tokens)


def is_known(model: Model) -> bool:
    """Whether a model is its layers and nothing else, and convlab knows what all of them compute."""
    return model.whole and all(part.layer is not None for part in model.parts)


def weighted(model: Model, alone: bool = False) -> list[Step]:
    """The steps that have weights; `alone`, or if the model isn't known, layers without the border before them."""
    if is_known(model) and not alone:
        return [each for each in steps(model) if each.main.arrays]
    return [_step([part]) for part in parts_with_arrays(model.parts)]


def _step(parts: Sequence[Part]) -> Step:
    layers = [part.layer for part in parts if part.layer is not None]
    natives = tuple(part.native for part in parts)
    return Step(parts[-1].path, tuple(layers), natives, parts[0].inputs, parts[-1].value)
