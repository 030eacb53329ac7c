"""The graph of a model whose `__call__` is its own, traced by JAX."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convlab.errors import UnsupportedError
from convlab.models.layers.arguments import examples_of, input_values
from convlab.models.layers.attention import Attention
from convlab.models.layers.folded import convolution
from convlab.models.layers.layer import BatchNorm, Convolution, Dense
from convlab.models.layers.outputs import results_of
from convlab.models.layers.ranks import layer_of_tokens, own_rank
from convlab.models.layers.reading import INPUT, Part, computed_anew, loose_code
from convlab.models.layers.spatial import shapes_in_words

from ..ops import ops
from .across_channels import anchors, concatenate_pixels, tokens
from .convolving import convolving
from .functions import Function, functions_of
from .program import LAYER, Constant, Equation, Program, Value, arrays_under, computed_array
from .read import add, concatenate, maximum, minimum, multiply, outputs, read_function
from .shapes import Shapes, larger_shapes, shapes_of_inputs
from .tokens import Forms, of_pixels

Unknown = dict[str, list[str]]


class Traced(NamedTuple):
    """What a trace has shown of a model.

    Attributes:
        parts: those of the model, with their inputs; where convlab doesn't know operations, the model's layers, each
            once, in the order of their calls.
        unknown: the operations that convlab doesn't know, by their owners' paths.
        used: the paths of the arrays that the code itself takes.
        computed: how the code computes kernels from arrays, by their paths.
        image: the shape (C, H, W) of the only images that the parts are for; None for all that the model takes.
        inputs: the values of the arguments, in order.
    """

    parts: list[Part]
    unknown: Unknown
    used: set[str]
    computed: dict[str, str]
    image: tuple[int, ...] | None = None
    inputs: tuple[str, ...] = (INPUT,)


def traced(
    model: Callable[..., Any],
    layer: Callable[[str], Part],
    inputs: Any,
    weights: Mapping[str, Any],
    names: Sequence[str] = ("x",),
) -> Traced:
    """What a model computes for all images, or else for those of the size of the given ones.

    Args:
        model: what calls it, and each layer in it by `convlab_jax.shared.program.layer_call`.
        layer: the part that the layer at a path is.
        inputs: images that it takes, (N, C, H, W), of several arguments for each; None for some that are found.
        weights: the model's arrays by their paths.
        names: those of the arguments.

    Raises:
        UnsupportedError: it can't be run on the images, or on any of those that were tried.
    """
    arrays, examples, values = weights.values(), examples_of(inputs, names), input_values(names)
    dtype = next((ops.dtype(array) for array in arrays if jnp.issubdtype(array.dtype, jnp.floating)), "float32")

    def reading(program: Program) -> _Reading:
        return _Reading(program, layer, weights, values)

    with ops.scope(dtype):
        tried = shapes_of_inputs(examples, [array.shape for array in arrays], len(names))
        shapes, program = _first(model, tried, dtype)
        graph = reading(program)
        for larger in larger_shapes(shapes):
            with contextlib.suppress(UnsupportedError):  # The model may take images of one size.
                graph.keep(reading(_first(model, [larger], dtype)[1]))
                if graph.is_clear:
                    break
        if inputs is not None and graph.refused and len(names) == 1:
            at_size, ((n, *image),) = reading(program), shapes
            at_size.keep(reading(_first(model, [((n + 1, *image),)], dtype)[1]))
            if not at_size.refused:
                return Traced(*at_size.result(), at_size.used, at_size.notes, (image[-1], *image[:-1]))
            graph = at_size
        return Traced(*graph.result(), graph.used, graph.notes, inputs=values)


def _first(model: Callable[..., Any], several: Iterable[Shapes], dtype: str) -> tuple[Shapes, Program]:
    """The first of the shapes that a model takes, and what it computes there."""
    first: Exception | None = None
    tried: list[Shapes] = []
    for shapes in several:
        try:
            images = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]  # type: ignore[no-untyped-call]
            return shapes, Program(model, *images)
        except Exception as error:  # The model's own code may raise anything.
            first = first or error
            tried.append(shapes)
    on = "anything"
    if tried:
        words = [f"{shapes_in_words(len(shape) - 2, last=True)} = {shape}" for shape in tried[0]]
        on = f"{' and '.join(words)}{' and others' if tried[1:] else ''}"
    why = f" ({type(first).__name__}: {(str(first).strip().splitlines() or [''])[0][:300]})" if first else ""
    raise UnsupportedError(f"it can't be run on {on}{why}") from first


def _of_each_pixel(layer: Dense, rank: int) -> Convolution:
    """What a dense layer computes of images."""
    return convolution(layer.kernel.reshape(*layer.kernel.shape, *(1,) * rank), layer.bias, layer.dtype)


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
        used: the paths of the model's arrays that its code itself takes.
        notes: how it computes kernels from them, by their paths.
        refused: the owners' paths of equations that convlab doesn't know, and what they do, by their numbers.
    """

    def __init__(
        self, program: Program, layer: Callable[[str], Part], weights: Mapping[str, Any], inputs: Sequence[str]
    ) -> None:
        self.layer, self.forms = layer, Forms(program)
        self.inputs = dict(zip(program.inputs, inputs, strict=True))
        self.weights = {id(array): path for path, array in weights.items()}
        self.used: set[str] = set()
        self.notes: dict[str, str] = {}
        self.parts: dict[int, Part] = {}
        self.choices: dict[int, list[Function]] = {}
        self.refused: dict[int, tuple[str, str]] = {}
        results = self._results(program)
        seen: set[int] = set()
        while results:
            value = results.pop()
            if value.by is not None and value.by.number not in seen:
                seen.add(value.by.number)
                results += self._read(value, value.by)

    def _results(self, program: Program) -> list[Value]:
        """The program's results; several are those of one more part."""
        computed = [value for value in program.outputs if isinstance(value, Value) and value.varies]
        number = len(program.equations)
        try:
            names, results = results_of(program.result)
        except UnsupportedError as error:
            self.refused[number] = "", str(error)
            return computed
        if len(computed) < len(results) or not all(each in computed for each in results):
            self.refused[number] = "", "a result that isn't an array that is computed from the image"
        elif any(self.forms.is_moved(each) and len(each.shape) != 3 for each in results):
            self.refused[number] = "", "a result that is an image's pixels in other rows"
        else:
            given = [self._as_result(value, number + place) for place, value in enumerate(results)]
            number += len(results)
            if len(results) > 1:
                self.choices[number] = [Function(outputs, (("names", names),))]
                self.parts[number] = Part("", None, None, "", tuple(given), str(number))
        return computed

    def _as_result(self, value: Value, number: int) -> str:
        """The name of a value as the model gives it: tokens are one more part, of this number."""
        (own,) = self._names_of([value])
        if not self.forms.is_moved(value):
            return own
        self.choices[number] = [Function(tokens)]
        self.parts[number] = Part("", None, None, "", (own,), str(number))
        return str(number)

    def _read(self, value: Value, equation: Equation) -> list[Value]:
        """Read what gives a value; the values that it takes come back."""
        sources = [each for each in equation.inputs if isinstance(each, Value) and each.varies]
        if equation.number in self.forms.needless:
            return sources
        if equation.primitive == LAYER:
            self._read_layer(equation, sources)
            return sources
        if count := self.forms.boxes.get(equation.number, 0):
            return self._read_tokens(equation, Function(anchors, (("count", count),)), sources)
        if self.forms.joins(equation):
            return self._read_tokens(equation, Function(concatenate_pixels), sources)
        functions, source = functions_of(value)
        if source is not None:
            sources = [source]
            self.notes |= self._computed(equation)
        elif (layer := convolving(equation)) is not None:
            function, options, source = layer
            functions, sources = [Function(function, tuple(options.items()))], [source]
            self.notes |= self._computed(equation)
        elif (joining := _joining(value, equation)) is not None:
            functions = [Function(joining)]
        elif equation.primitive == "square" or (equation.primitive, equation.params.get("y")) == ("integer_pow", 2):
            functions, sources = [Function(multiply)], [*sources, *sources]
        if any(map(self.forms.is_moved, sources)):
            functions = self._of_pixels(functions, sources)
        if functions:
            self.choices[equation.number] = functions
            self._append(equation, Part(equation.owner, None, None, name=self._own(equation)), sources)
        else:
            self.refused[equation.number] = equation.owner, f"{equation.name}{_constant_in(equation)}"
        return sources

    def _read_tokens(self, equation: Equation, function: Function, sources: list[Value]) -> list[Value]:
        """Read what makes tokens of each pixel, or puts tokens behind each other."""
        self.choices[equation.number] = [function]
        self._append(equation, Part(equation.owner, None, None), sources)
        return sources

    def _of_pixels(self, functions: Sequence[Function], sources: Sequence[Value]) -> list[Function]:
        """What functions of tokens are of the images whose pixels they are; none for those of unlike images."""
        if len({self.forms.of(each) for each in sources}) > 1:
            return []
        return [each for function in functions if (each := of_pixels(function, len(sources[0].shape)))]

    def _computed(self, equation: Equation) -> dict[str, str]:
        """How the code computes arrays that an equation takes, by the paths of the arrays that it takes for it."""
        own = [each for each in equation.inputs if not _varies(each) and each.shape and _has_other_numbers(each)]
        return computed_anew({self.weights.get(id(array), "") for each in own for array in arrays_under(each)} - {""})

    def _own(self, equation: Equation) -> str:
        """The path of the array of the model's own that an equation takes; "" for none."""
        arrays = [array for each in equation.inputs if not _varies(each) for array in arrays_under(each)]
        paths = {self.weights.get(id(array), "") for array in arrays}
        self.used |= paths
        path = paths.pop() if len(paths) == 1 else ""
        return path.removesuffix("/kernel") if convolving(equation) else path

    def _read_layer(self, equation: Equation, sources: Sequence[Value]) -> None:
        path, axes = equation.params["path"], len(sources[0].shape)
        part = self.layer(path)
        if isinstance(part.layer, Dense) and 3 <= axes <= 5:
            part = replace(part, layer=_of_each_pixel(part.layer, axes - 2))
        if isinstance(part.layer, BatchNorm):
            part = replace(part, layer=replace(part.layer, rank=axes - 2))
        rank, attends = axes - 2, type(part.layer) is Attention
        if self.forms.is_moved(sources[0]) and part.layer is not None:
            of_pixels = layer_of_tokens(part.layer)
            part, rank = replace(part, layer=of_pixels or part.layer), 2 if of_pixels else -1
        with_what = f"an array of {axes} axes"
        if len(equation.inputs) > 1 and not (attends and len({*equation.inputs}) == 1):
            with_what, rank = "more than one array", -1
        elif equation.params["options"]:
            with_what, rank = ", ".join(equation.params["options"]), -1
        elif attends and axes != 3:
            with_what, rank = f"{with_what}, of which it knows the last but one alone", -1
        if rank < 0 or not 2 <= axes <= 5 or own_rank(part.layer) not in (0, rank):
            self.refused[equation.number] = equation.owner, f"{path}, called with {with_what}"
        self._append(equation, part, sources[:1])

    def _append(self, equation: Equation, part: Part, sources: Sequence[Value]) -> None:
        self.parts[equation.number] = replace(part, inputs=self._names_of(sources), value=str(equation.number))

    def _names_of(self, values: Sequence[Value]) -> tuple[str, ...]:
        given = map(self.forms.source, values)
        return tuple(self.inputs[each] if each.by is None else str(each.by.number) for each in given)

    @property
    def is_clear(self) -> bool:
        """Whether no two functions are left for one value."""
        return all(len(functions) == 1 for functions in self.choices.values())

    def keep(self, other: _Reading) -> None:
        """Keep the functions that are also found for images of another size."""
        numbers, theirs = sorted(self.parts), sorted(other.parts)
        if [self.parts[each].path for each in numbers] != [other.parts[each].path for each in theirs]:
            self.refused[-1] = "", "what depends on the image's size"
            return
        for number, their in zip(numbers, theirs, strict=True):
            if number in self.choices:
                name = self.choices[number][0].function.__name__
                self.choices[number] = [each for each in self.choices[number] if each in other.choices[their]]
                if not self.choices[number]:
                    self.choices[number] = other.choices[their]
                    what = f"{name}, whose arguments depend on the image's size"
                    self.refused[number] = self.parts[number].path, what

    def result(self) -> tuple[list[Part], Unknown]:
        """The parts, and the unknown operations by their owners' paths."""
        parts: list[Part] = []
        with_arrays: set[str] = set()
        for number, part in sorted(self.parts.items()):
            if number in self.choices:
                native = self.choices[number][0].native
                layer, note = read_function(native)
                path = part.name or "/".join(filter(None, [part.path, note.partition(":")[0]]))
                if layer is not None and layer.arrays:  # Its numbers are found by its path.
                    path += f"_{number}" if path in with_arrays else ""
                    with_arrays.add(path)
                part = replace(part, path=path, native=native, layer=layer, note=note, name="")
            parts.append(part)
        if not self.refused:
            return parts, {}
        unknown: Unknown = {}
        for _, (owner, what) in sorted(self.refused.items()):
            unknown.setdefault(owner, []).append(what)
        layers = {
            part.path: replace(part, inputs=(), value="") for part in parts if int(part.value) not in self.choices
        }
        return [*layers.values()], unknown


def _has_other_numbers(value: Value | Constant) -> bool:
    """Whether a known value has other numbers than the arrays that it is taken from: not those repeated or picked."""
    numbers = computed_array(value)
    return numbers is not None and not any(np.isin(numbers, array).all() for array in arrays_under(value))


def _varies(value: Value | Constant) -> bool:
    return isinstance(value, Value) and value.varies


def _joining(value: Value, equation: Equation) -> Callable[..., Any] | None:
    """The function by which an equation joins several values; None if it doesn't."""
    if len(equation.inputs) < 2 or not all(isinstance(each, Value) and each.varies for each in equation.inputs):
        return None
    if equation.primitive == "concatenate":
        return concatenate if equation.params["dimension"] == len(value.shape) - 1 else None
    return _JOINING.get(equation.primitive)


_JOINING: dict[str, Callable[..., Any]] = {
    "add": add,
    "add_any": add,
    "sub": jnp.subtract,
    "mul": multiply,
    "div": jnp.divide,
    "max": maximum,
    "min": minimum,
}


def _constant_in(equation: Equation) -> str:
    """What an operation on two numbers takes beside one that is computed, in words."""
    others = [each for each in equation.inputs if isinstance(each, Constant) or not each.varies]
    if not others or equation.primitive not in ("add", "mul", "sub", "div"):
        return ""
    return ": it takes a number" if not others[0].shape else f": it takes an array of shape {others[0].shape}"
