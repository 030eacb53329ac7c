"""The calls that a Keras model is made of, a functional one's own, or those of a `call` traced on symbolic tensors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.layers.arguments import arguments_needed
from convlab.models.layers.reading import inputs_first

from .. import private

# A number of images that no code has for another reason.
_IMAGES = 13
# Code is traced again for images of so many times the rows and columns, or of these sizes where they are unknown.
_TIMES = {0.25: 16, 2: 64, 8: 512}


def in_order(model: keras.Model) -> Iterator[Any]:
    """The calls that a functional model is made of, each behind those whose results it takes."""
    calls = private.calls(model)
    if calls is None:
        raise UnsupportedError("this Keras doesn't tell how its layers are connected")
    by_result = {id(tensor): call for call in calls for tensor in call.outputs}

    def giving(tensors: Sequence[Any]) -> list[Any]:
        return [by_result[id(tensor)] for tensor in tensors if id(tensor) in by_result]

    return inputs_first(giving(model.outputs), lambda call: giving(call.input_tensors))


def traced_call(layer: kl.Layer, tensors: Sequence[Any], alone: bool) -> keras.Model | str:
    """A functional model of what a layer's own `call` does to tensors of these shapes, or why there is none.

    Args:
        layer: anyone's.
        tensors: symbolic ones, which it takes.
        alone: whether it may do something else for images of other sizes.
    """
    shapes, dtypes = [tuple(tensor.shape[1:]) for tensor in tensors], [tensor.dtype for tensor in tensors]
    traced = _traced(layer, shapes, dtypes)
    if isinstance(traced, str) or alone:
        return traced
    for times, size in _TIMES.items():
        other = _traced(layer, [_resized(shape, times, size) for shape in shapes], dtypes)
        if not isinstance(other, str) and _kinds(other) != _kinds(traced):
            return (
                "its call does something else for images of other sizes. Hint: give input_size=, or inputs= for several"
            )
    return traced


def as_arguments(layer: kl.Layer, tensors: Sequence[Any]) -> list[Any]:
    """The arguments by which a layer takes tensors: one for each, or a list of several."""
    return [*tensors] if len(tensors) == 1 or len(arguments_needed(layer.call)) == len(tensors) else [[*tensors]]


def _traced(layer: kl.Layer, shapes: Sequence[tuple[int | None, ...]], dtypes: Sequence[str]) -> keras.Model | str:
    why = ""
    traced: keras.Model | None = None
    # Code that repeats an array for each image, or has a shape for them all, must be told how many there are.
    for count in (None, _IMAGES):
        both = zip(shapes, dtypes, strict=True)
        symbols = [keras.Input(batch_shape=(count, *shape), dtype=dtype) for shape, dtype in both]
        try:
            with _variables_take_symbols():
                result = layer.call(*as_arguments(layer, symbols))
            traced = keras.Model(symbols if len(symbols) > 1 else symbols[0], result)
        except Exception as error:  # The layer's own code may fail in any way on symbolic tensors.
            why = why or f"its call can't be traced on symbolic tensors ({_in_words(error)}"
            continue
        if not any(map(_has_open_shape, private.calls(traced) or ())):
            break
    return why if traced is None else traced


def _in_words(error: Exception) -> str:
    """What is wrong with code that takes no symbolic tensors, and what helps; a bracket is open before it."""
    text = str(error).strip().partition("\n")[0]
    if "TensorFlow function" in text:
        return "it calls TensorFlow's functions). Hint: keras.ops has most of them, and takes such tensors"
    first = text.partition(". ")[0].rstrip(".")[:200]
    return f"{type(error).__name__}: {first})"


# What Python's operators of a variable are called, and the operations that they are.
_OPERATORS = {
    "__add__": keras.ops.add,
    "__sub__": keras.ops.subtract,
    "__mul__": keras.ops.multiply,
    "__truediv__": keras.ops.divide,
    "__matmul__": keras.ops.matmul,
}


@contextlib.contextmanager
def _variables_take_symbols() -> Iterator[None]:
    """A context in which `variable * x` takes a symbolic x, as it does within Keras's own calls of a layer."""
    theirs = {name: getattr(keras.Variable, name) for name in _OPERATORS}

    def operator(name: str) -> Callable[[Any, Any], Any]:
        return lambda a, b: (_OPERATORS if isinstance(b, keras.KerasTensor) else theirs)[name](a, b)

    inherited = [name for name in theirs if name not in vars(keras.Variable)]
    try:
        for name in theirs:
            setattr(keras.Variable, name, operator(name))
        yield
    finally:
        for name, method in theirs.items():
            setattr(keras.Variable, name, method)
        for name in inherited:
            delattr(keras.Variable, name)


def _resized(shape: tuple[int | None, ...], times: float, size: int) -> tuple[int | None, ...]:
    """The shape of images of other rows and columns, in the order of channels that the framework is set to."""
    first = keras.config.image_data_format() == "channels_first"
    sizes = [size if n is None else math.ceil(n * times) for n in (shape[1:] if first else shape[:-1])]
    return (*shape[:1], *sizes) if first else (*sizes, *shape[-1:])


def _kinds(model: keras.Model) -> list[str]:
    """The operations of a functional model, by name."""
    return [type(call.operation).__name__ for call in in_order(model)]


def _has_open_shape(call: Any) -> bool:
    """Whether a call gives a shape with a size that isn't known, and isn't for Keras to find."""
    shape = getattr(call.operation, "newshape", ())
    return isinstance(shape, (tuple, list)) and any(size is None for size in shape)
