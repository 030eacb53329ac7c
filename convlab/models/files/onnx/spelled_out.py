"""Layers that a file spells out in several operations: x * sigmoid(x) for SiLU, erf for GELU, a bias that is added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ...layers.activations import FUNCTIONS, WITH_PARAMETER, Activation, Affine, Clip
from ...layers.joining import Add, Divide, Multiply, Subtract
from ...layers.layer import Convolution, Dense, Layer
from ...layers.norms import ChannelAffine, GroupNorm
from ...layers.reading import Part, consumers

# Where functions are compared: beyond the bends of all of them. A file's constants have the digits of float32.
_NUMBERS = np.linspace(-9, 9, 193)
_TOLERANCE = 2e-6
_NAMES = [name for name in FUNCTIONS if name not in WITH_PARAMETER]
# No activation is spelled out in more operations.
_MOST_OPERATIONS = 12


@dataclass(frozen=True, eq=False)
class Elementwise(Layer):
    """A function of each number, or of two, that is no layer by itself, only as a piece of an activation.

    Attributes:
        of: the function.
        values: how many numbers it takes.
    """

    kind = "elementwise"

    of: Callable[..., np.ndarray]
    values: int = 1

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return self.of(*values)


_PIECES = (Activation, Affine, Clip, Elementwise, Add, Subtract, Multiply, Divide)


def with_activations(parts: Sequence[Part]) -> list[Part]:
    """The parts, with one activation in the place of those that together compute it from a single value.

    >>> sigmoid = Part("gate", None, Activation("sigmoid"), "Sigmoid", ("input",), "a")
    >>> times = Part("swish", None, Multiply(), "Mul", ("input", "a"), "b")
    >>> [part.layer.function for part in with_activations([sigmoid, times])]
    ['silu']
    """
    takers, by_value = consumers(parts), {part.value: part for part in parts}
    places = {part.value: number for number, part in enumerate(parts)}
    joined: dict[str, Part] = {}
    needless: set[str] = set()
    for part in reversed(parts):  # The last operation of an activation comes before its pieces.
        if part.value in needless or not isinstance(part.layer, _PIECES) or isinstance(part.layer, Activation):
            continue
        pieces = sorted(_pieces(part, by_value, takers), key=lambda piece: places[piece.value])
        for root in dict.fromkeys(value for piece in pieces for value in piece.inputs):
            inside = _between(root, part, by_value, pieces)
            function = inside and _function(root, part, inside)
            if function:
                joined[part.value] = replace(part, layer=Activation(function), inputs=(root,))
                needless |= {each.value for each in inside} - {part.value}
                break
    return [joined.get(part.value, part) for part in parts if part.value not in needless]


def _pieces(last: Part, by_value: Mapping[str, Part], takers: Mapping[str, Sequence[Part]]) -> list[Part]:
    """The last part and the pieces before it whose results nothing else takes."""
    pieces = [last]
    for piece in pieces:
        for value in piece.inputs:
            before = by_value.get(value)
            if before in pieces or before is None or not isinstance(before.layer, _PIECES):
                continue
            if all(taker in pieces for taker in takers[value]) and len(pieces) < _MOST_OPERATIONS:
                pieces.append(before)
    return pieces


def _between(root: str, last: Part, by_value: Mapping[str, Part], pieces: Sequence[Part]) -> list[Part]:
    """The pieces between a value and the last part, in order; none if they take anything else."""
    inside: set[str] = set()
    stack = [last]
    while stack:
        part = stack.pop()
        inside.add(part.value)
        for value in part.inputs:
            if value != root and value not in inside:
                if by_value.get(value) not in pieces:
                    return []
                stack.append(by_value[value])
    return [piece for piece in pieces if piece.value in inside]


def _function(root: str, last: Part, inside: Sequence[Part]) -> str:
    """The activation that parts compute from a value; "" for none."""
    values = {root: _NUMBERS}
    with np.errstate(all="ignore"):
        for part in inside:
            assert part.layer is not None
            values[part.value] = part.layer.reference(*map(values.__getitem__, part.inputs))
    same = np.isclose(values[last.value], _results(), _TOLERANCE, _TOLERANCE, equal_nan=True).all(axis=1)
    return _NAMES[int(same.argmax())] if same.any() else ""


@cache
def _results() -> np.ndarray:
    """What each activation computes from the numbers."""
    return np.stack([FUNCTIONS[name].of(_NUMBERS, 0.0) for name in _NAMES])


def with_numbers(parts: Sequence[Part]) -> list[Part]:
    """The parts, with the bias of a convolution or a dense layer, and the scale and shift of a group norm, in it."""
    takers, result = consumers(parts), dict[str, Part]()
    for part in parts:
        before = result.get(part.inputs[0])
        if before is not None and len(takers[before.value]) == 1 and isinstance(part.layer, ChannelAffine):
            layer = _with_its_numbers(before.layer, part.layer)
            if layer is not None:
                del result[before.value]
                part = replace(before, layer=layer, value=part.value)
        result[part.value] = part
    return [*result.values()]


def _with_its_numbers(layer: Layer | None, after: ChannelAffine) -> Layer | None:
    """The one layer that is another and what is done to its channels; None if there is none."""
    if not isinstance(layer, (Convolution, Dense, GroupNorm)):
        return None
    own = layer.scale if isinstance(layer, GroupNorm) else layer.kernel
    numbers = [array for array in (after.scale, after.shift) if array is not None]
    if any(len(array) != len(own) or array.dtype != own.dtype for array in numbers):
        return None
    if isinstance(layer, GroupNorm):
        return _scaled(layer, after)
    if layer.bias is not None or after.scale is not None:
        return None
    if isinstance(layer, Convolution):
        return replace(layer, bias=after.shift, spec=replace(layer.spec, use_bias=True))
    return replace(layer, bias=after.shift)


def _scaled(layer: GroupNorm, after: ChannelAffine) -> Layer | None:
    if layer.shift.any() or (after.scale is not None and (layer.scale != 1).any()):
        return None
    scale = layer.scale if after.scale is None else after.scale
    return replace(layer, scale=scale, shift=layer.shift if after.shift is None else after.shift)
