"""The graph of a model whose `__call__` is its own, traced by JAX."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convlab.errors import UnsupportedError
from convlab.models.layers.activations import Activation
from convlab.models.layers.joining import Add, Multiply
from convlab.models.layers.layer import Convolution, Dense, Dropout
from convlab.models.layers.pooling import GlobalPool
from convlab.models.layers.reading import INPUT, Part, consumers, loose_code, without

from ..ops import ops
from .functions import Function, functions_of
from .program import LAYER, Equation, Program, Value
from .read import add, concatenate, multiply, pixel, read_function

_SIZES = (32, 64, 28, 224, 16, 8)
# What is added to an image's size, so that it is even or odd wherever it was halved some times.
_LARGER = (1, 2, 4, 8, 16)

Unknown = dict[str, list[str]]


def traced(
    model: Callable[[Any], Any], layer: Callable[[str], Part], inputs: Any, weights: Sequence[Any]
) -> tuple[list[Part], Unknown]:
    """The parts of a model with their inputs, and by their owners' paths the operations that convlab doesn't know.

    Where there are such operations, the parts are the model's layers, each once, in the order of their calls.

    Args:
        model: what calls it, and each layer in it by `convlab_jax.shared.program.layer_call`.
        layer: the part that the layer at a path is.
        inputs: images that it takes, (N, C, H, W); None for some that are found.
        weights: the model's arrays.

    Raises:
        UnsupportedError: it can't be run on the images, or on any of those that were tried.
    """
    dtype = next((ops.dtype(array) for array in weights if jnp.issubdtype(array.dtype, jnp.floating)), "float32")
    with ops.scope(dtype):
        shape, program = _first(model, _shapes(inputs, [array.shape for array in weights]), dtype)
        graph = _Reading(program, layer)
        for more in _LARGER if len(shape) == 4 else ():
            if not any(len(choices) > 1 for choices in graph.choices.values()):
                break
            with contextlib.suppress(Exception):  # The model may take images of one size.
                n, rows, columns, channels = shape
                larger = Program(model, jax.ShapeDtypeStruct((n, rows + more, columns + more, channels), dtype))
                graph.keep(_Reading(larger, layer))
        return graph.result()


def _shapes(inputs: Any, weights: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Shapes that a model may take: that of the given images, or some that kernels among its weights take."""
    if inputs is not None:
        n, channels, *size = np.shape(inputs)
        yield n, *size, channels
        return
    channels_of = {shape[2] for shape in weights if len(shape) == 4} or {1, 3}
    for channels in sorted(channels_of, key=lambda number: (number != 3, number)):
        yield from ((2, size, size, channels) for size in _SIZES)
    yield from ((2, rows) for rows in dict.fromkeys(shape[0] for shape in weights if len(shape) == 2))


def _first(
    model: Callable[[Any], Any], shapes: Iterable[tuple[int, ...]], dtype: str
) -> tuple[tuple[int, ...], Program]:
    """The first of the shapes that a model takes, and what it computes there."""
    first: Exception | None = None
    tried: list[tuple[int, ...]] = []
    for shape in shapes:
        try:
            return shape, Program(model, jax.ShapeDtypeStruct(shape, dtype))
        except Exception as error:  # The model's own code may raise anything.
            first = first or error
            tried.append(shape)
    on = f"images (N, H, W, C) = {tried[0]}{' and others' if tried[1:] else ''}" if tried else "anything"
    why = f" ({type(first).__name__}: {(str(first).strip().splitlines() or [''])[0][:300]})" if first else ""
    raise UnsupportedError(f"it can't be run on {on}{why}") from first


def loose_calls(modules: Mapping[str, Any], unknown: Unknown) -> dict[str, str]:
    """The notes of what modules at paths do between their layers, by the paths of their calls."""
    return {
        f"{path}/__call__()".lstrip("/"): loose_code(modules[path], "__call__", operations)
        for path, operations in unknown.items()
    }


class _Reading:
    """A traced program on its way to parts, read from its result back to the image.

    Attributes:
        parts: by the number of the equation that gives their values; functions are still without a native.
        choices: the functions that each of the latter may be.
        refused: the owners' paths of equations that convlab doesn't know, and what they do, by their numbers.
    """

    def __init__(self, program: Program, layer: Callable[[str], Part]) -> None:
        self.layer = layer
        self.parts: dict[int, Part] = {}
        self.choices: dict[int, list[Function]] = {}
        self.refused: dict[int, tuple[str, str]] = {}
        results = [value for value in program.outputs if isinstance(value, Value) and value.varies]
        if not len(program.outputs) == len(results) == 1:
            self.refused[len(program.equations)] = "", "a result that isn't one array"
        seen: set[int] = set()
        while results:
            value = results.pop()
            if value.by is not None and value.by.number not in seen:
                seen.add(value.by.number)
                results += self._read(value, value.by)

    def _read(self, value: Value, equation: Equation) -> list[Value]:
        """Read what gives a value; the values that it takes come back."""
        sources = [each for each in equation.inputs if isinstance(each, Value) and each.varies]
        if equation.primitive == LAYER:
            self._read_layer(equation, sources)
            return sources
        functions, source = functions_of(value)
        if source is not None:
            sources = [source]
        elif (joining := _joining(value, equation)) is not None:
            functions = [Function(joining)]
        if functions:
            self.choices[equation.number] = functions
            self._append(equation, Part(equation.owner, None, None), sources)
        else:
            takes_number = len(sources) == 1 and equation.primitive in ("add", "mul", "sub", "div")
            what = f"{equation.name}{': it takes a number' if takes_number else ''}"
            self.refused[equation.number] = equation.owner, what
        return sources

    def _read_layer(self, equation: Equation, sources: Sequence[Value]) -> None:
        path, axes = equation.params["path"], len(sources[0].shape)
        part = self.layer(path)
        if isinstance(part.layer, Dense) and axes == 4:
            part = replace(part, layer=_of_pixels(part.layer))
        if len(sources) > 1 or axes not in (2, 4):
            with_what = "more than one array" if len(sources) > 1 else f"an array of {axes} axes"
            self.refused[equation.number] = equation.owner, f"{path}, called with {with_what}"
        self._append(equation, part, sources)

    def _append(self, equation: Equation, part: Part, sources: Sequence[Value]) -> None:
        inputs = tuple(INPUT if each.by is None else str(each.by.number) for each in sources)
        self.parts[equation.number] = replace(part, inputs=inputs, value=str(equation.number))

    def keep(self, other: _Reading) -> None:
        """Keep the functions that are also found for images of another size."""
        numbers, theirs = sorted(self.parts), sorted(other.parts)
        if [self.parts[each].path for each in numbers] != [other.parts[each].path for each in theirs]:
            self.refused[-1] = "", "what depends on the image's size"
            return
        for number, their in zip(numbers, theirs, strict=True):
            if number in self.choices:
                both = [each for each in self.choices[number] if each in other.choices[their]]
                if both:
                    self.choices[number] = both
                else:
                    name = self.choices[number][0].function.__name__
                    self.refused[number] = self.parts[number].path, f"{name}: its window depends on the image's size"

    def result(self) -> tuple[list[Part], Unknown]:
        """The parts, and the unknown operations by their owners' paths."""
        parts: list[Part] = []
        for number, part in sorted(self.parts.items()):
            if number in self.choices:
                native = self.choices[number][0].native
                layer, note = read_function(native)
                path = "/".join(filter(None, [part.path, note.partition(":")[0]]))
                part = replace(part, path=path, native=native, layer=layer, note=note)
            parts.append(part)
        graph = [] if self.refused else _without_rows(parts)
        if any(_function(part) is pixel for part in graph):
            self.refused[-1] = "", "rows of numbers that become images"
        if not self.refused:
            return graph, {}
        unknown: Unknown = {}
        for _, (owner, what) in sorted(self.refused.items()):
            unknown.setdefault(owner, []).append(what)
        layers = {
            part.path: replace(part, inputs=(), value="") for part in parts if int(part.value) not in self.choices
        }
        return [*layers.values()], unknown


def _joining(value: Value, equation: Equation) -> Callable[..., Any] | None:
    """The function by which an equation joins several values; None if it doesn't."""
    if len(equation.inputs) < 2 or not all(isinstance(each, Value) and each.varies for each in equation.inputs):
        return None
    if equation.primitive == "concatenate":
        return concatenate if equation.params["dimension"] == len(value.shape) - 1 else None
    return {"add": add, "add_any": add, "mul": multiply}.get(equation.primitive)


def _of_pixels(layer: Dense) -> Convolution:
    """What a dense layer computes of images: of each pixel."""
    return Convolution.of(layer.kernel[:, :, None, None], layer.bias, layer.dtype)


def _function(part: Part) -> Any:
    return part.native.func if isinstance(part.native, functools.partial) else part.native


def _without_rows(parts: Sequence[Part]) -> list[Part]:
    """The parts, where rows of numbers that become images of one pixel again have been such images all along.

    That is how the scales of channels are computed: a global pooling, dense layers, `x * scale[:, None, None, :]`.
    """
    by_value, takers = {part.value: part for part in parts}, consumers(parts)
    changed: dict[str, Part] = {}
    stack = [part.inputs[0] for part in parts if _function(part) is pixel]
    while stack:
        value = stack.pop()
        if value in changed:
            continue
        part = by_value.get(value)
        if part is None:
            return [*parts]
        if isinstance(part.layer, GlobalPool):
            native = functools.partial(_function(part), axis=(1, 2), keepdims=True)
            changed[value] = replace(part, native=native, layer=replace(part.layer, keepdims=True))
            continue
        if isinstance(part.layer, Dense):
            part = replace(part, layer=_of_pixels(part.layer))
        elif not isinstance(part.layer, (Activation, Dropout, Add, Multiply)):
            return [*parts]
        changed[value] = part
        stack += part.inputs
    kept = {*changed, *(part.value for part in parts if _function(part) is pixel)}
    if parts and (
        parts[-1].value in kept or any(taker.value not in kept for value in changed for taker in takers[value])
    ):
        return [*parts]
    return without([changed.get(part.value, part) for part in parts], lambda part: _function(part) is pixel)
