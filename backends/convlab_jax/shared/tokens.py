"""Arrays in a traced program that are the tokens of a sequence: the pixels of images, row by row."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp

from .activations import ACTIVATIONS
from .attention import class_token, first_pixel, first_token, positions
from .functions import Function
from .moving import channel_slice, chunk
from .program import Equation, Program, Value
from .read import add, affine, channel_affine, concatenate, flatten, maximum, minimum, multiply

# What knows no rows and columns.
_OF_PIXELS = {
    *(function for function, _ in ACTIVATIONS),
    *(nn.leaky_relu, nn.elu, jnp.clip, affine, channel_affine, flatten, chunk, channel_slice, class_token, positions),
    *(add, multiply, maximum, minimum, jnp.subtract, jnp.divide, concatenate),
}
Form = tuple[int, ...]


class Forms:
    """In which rows and columns the pixels of a program's values stand, whatever shape its code gives them.

    Attributes:
        needless: the numbers of the equations that only change the shape in which pixels stand.
        boxes: how many tokens equations make of each pixel of an image, by their numbers.
    """

    def __init__(self, program: Program) -> None:
        self.needless: set[int] = set()
        self.boxes: dict[int, int] = {}
        self._known: dict[Value, Form] = {}
        for value in program.values:
            self._known[value] = self._form(value, value.by)

    def of(self, value: Value) -> Form:
        """The rows and columns of a value's pixels, or what axes it has in their place."""
        return self._known[value]

    def is_moved(self, value: Value) -> bool:
        """Whether the code has a value's pixels in another shape than in that of the image."""
        return self._known[value] != value.shape[1:-1]

    def joins(self, equation: Equation) -> bool:
        """Whether an equation puts tokens, of several images perhaps, behind each other."""
        sources = _varying(equation)
        of_tokens = all(len(each.shape) > 2 and each.shape[2:-1] in ((), (1,)) for each in sources)
        of_tokens = of_tokens and all(map(self.is_moved, sources))
        along = equation.primitive == "concatenate" and equation.params["dimension"] == 1
        return along and of_tokens and len(sources) == len(equation.inputs) > 1

    def source(self, value: Value) -> Value:
        """The value that is the same but for its shape."""
        while value.by is not None and value.by.number in self.needless:
            value = _varying(value.by)[0]
        return value

    def _form(self, value: Value, by: Equation | None) -> Form:
        own = value.shape[1:-1]
        sources = [] if by is None else _varying(by)
        if by is None or not sources:
            return own
        source, form = sources[0], self._known[sources[0]]
        if _puts_channels_back(by, source):
            return own
        if by.primitive in ("reshape", "broadcast_in_dim") and (len(form), len(own)) == (1, 2):
            # What stands in a sequence isn't an image, as inside jnp.pad.
            return form
        if len(form) == 2 and _reshapes(by, source, value):
            self.needless.add(by.number)
            return form
        if not self.is_moved(source):
            self.boxes |= {by.number: count} if (count := _boxes_at_pixel(by, source, value)) else {}
            return (form[0], form[1] * count) if count else own
        if self.joins(by):
            return own if len(own) == 2 else (*own, 1)
        if own == source.shape[1:-1]:
            return form
        if by.primitive == "concatenate" and len(sources) == 1 and own == (math.prod(form) + 1,):
            return *own, 1
        return own


def _puts_channels_back(equation: Equation, source: Value) -> bool:
    """Whether an equation gives back the axis of channels that a sum of them, or their greatest, has taken away."""
    reduced = source.by is not None and source.by.primitive in ("reduce_sum", "reduce_max")
    return (
        reduced
        and equation.primitive == "broadcast_in_dim"
        and len(source.shape) == 3
        and source.by.params["axes"] == (3,)  # type: ignore[union-attr]
        and equation.params["broadcast_dimensions"] == (0, 1, 2)
    )


def _varying(equation: Equation) -> list[Value]:
    return [each for each in equation.inputs if isinstance(each, Value) and each.varies]


def _reshapes(equation: Equation, source: Value, value: Value) -> bool:
    """Whether an equation changes no more than the axes of pixels, and leaves each one's channels together."""
    if equation.primitive != "reshape" or not {len(source.shape), len(value.shape)} <= {3, 4}:
        return False
    return (source.shape[0], source.shape[-1]) == (value.shape[0], value.shape[-1])


def _boxes_at_pixel(equation: Equation, source: Value, value: Value) -> int:
    """How many tokens an equation makes of each pixel of an image; 0 where it does something else."""
    if equation.primitive != "reshape" or (len(source.shape), len(value.shape)) != (4, 3):
        return 0
    count, rest = divmod(source.shape[-1], value.shape[-1])
    return count if source.shape[0] == value.shape[0] and not rest else 0


def of_pixels(function: Function, axes: int) -> Function | None:
    """What a function of tokens, an array of so many axes, is of the images whose pixels they are; None for none."""
    options = dict(function.options)
    if function.function in (jnp.mean, jnp.max) and options.get("axis") == tuple(range(1, axes - 1)):
        return function._replace(options=tuple({**options, "axis": (1, 2)}.items()))
    if function.function is first_token:
        return Function(first_pixel)
    return function if function.function in _OF_PIXELS else None
