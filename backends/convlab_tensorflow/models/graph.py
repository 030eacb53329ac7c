"""The graph of a Keras model: a functional one's own, or that of a `call` of its own, traced on a symbolic tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.layers.outputs import results_of
from convlab.models.layers.own_arrays import OF_ONE_ARRAY
from convlab.models.layers.reading import Part, giving

from .. import private
from ..channel_layers import Anchors, ConcatenatePixels, Tokens
from .arrays import own_variables
from .calls import in_order, traced_call
from .functions import factors, native_of, parts_of_split
from .outputs import Outputs
from .readers import read_layer
from .spelled_out import spelled_out
from .tokens import Forms, known_by_what_it_does, part_of_tokens

Parts = Callable[[kl.Layer, str], Sequence[Part]]


def graph_of(
    model: keras.Model,
    parts: Parts,
    joining: tuple[type[kl.Layer], ...],
    shapes: Mapping[str, Sequence[int | None] | None],
    channels_last: bool,
    alone: bool = False,
) -> list[Part]:
    """The parts of a model with their inputs.

    Args:
        model: any model or layer with layers inside.
        parts: the parts that a layer at a path is; none for one that does nothing.
        joining: the layers that take several tensors.
        shapes: of the inputs, by their values, of a model that has a `call` of its own, with the batch.
        channels_last: whether its images are NHWC; only their pixels are read as the tokens of a sequence.
        alone: whether the parts may be those for images of this shape alone.

    Raises:
        UnsupportedError: it can't be traced, or takes or gives more than one tensor; or an operation is unknown.
    """
    reading = _Reading(parts, joining, channels_last, alone, own_variables(model))
    tensors = [None if shape is None else keras.KerasTensor(tuple(shape)) for shape in shapes.values()]
    result = reading.layer(model, "", [*shapes], tensors)
    (names, values), (_, tensors) = results_of(result), results_of(reading.last)
    values = [reading.as_result(value, tensor) for value, tensor in zip(values, tensors, strict=True)]
    return giving(reading.result, values, lambda layer: Outputs(layer.names), names)


_UNKNOWN = "its input's shape isn't known. Hint: give inputs=, arrays that it takes"


class _Reading:
    """A model on its way to parts, in the order in which they are computed."""

    def __init__(
        self,
        parts: Parts,
        joining: tuple[type[kl.Layer], ...],
        channels_last: bool,
        alone: bool,
        variables: Mapping[int, str],
    ) -> None:
        self.parts, self.joining, self.channels_last, self.alone = parts, joining, channels_last, alone
        self.variables = variables
        self.result: list[Part] = []
        self.forms = Forms()
        self.last: Any = None

    def layer(self, layer: kl.Layer, path: str, inputs: Sequence[str], tensors: Sequence[Any]) -> Any:
        """Read a layer that takes these values; the name of its result comes back, or a container of several."""
        if isinstance(layer, keras.Sequential) and type(layer).call is keras.Sequential.call:
            tensor = layer.inputs[0] if tensors[0] is None and getattr(layer, "inputs", None) else tensors[0]
            result: Any = inputs[0]
            for child in layer.layers:
                result = self.layer(child, _inside(path, child.name), keras.tree.flatten(result), [tensor])
                self.last = tensor = _after(child, tensor)
            return result
        functional: Any = private.functional_class()
        if isinstance(layer, functional) and type(layer).call is functional.call:
            return self._functional(layer, path, inputs)
        if isinstance(layer, kl.Reshape) and tensors[0] is not None:
            after = layer.compute_output_shape(tensors[0].shape)
            value = self._reshaped(inputs[0], tensors[0].shape, after) if self.channels_last else ""
            if value:
                return value
        if isinstance(layer, kl.Concatenate) and self._joins_tokens(inputs, tensors, layer.axis):
            return self._join(inputs, _inside(path, "concatenate_pixels"))
        parts = self.parts(layer, path)
        # These two may be one layer together, which is seen in the graph.
        if any(part.layer is None for part in parts) and not isinstance(layer, (kl.Reshape, kl.Permute)):
            own = known_by_what_it_does(layer, tensors[0]) if len(inputs) == 1 else None
            if own is not None:
                return self._append([Part(path, layer, own, type(layer).__name__)], inputs, tensors[0])
            traced = _UNKNOWN if tensors[0] is None else traced_call(layer, tensors, self.alone)
            if not isinstance(traced, str):
                return self._functional(traced, path, inputs)
            if private.layers_inside(layer):
                raise UnsupportedError(f"{path}: {traced}" if path else traced)
        if len(inputs) > 1 and not isinstance(layer, self.joining):
            raise UnsupportedError(f"{path}: it takes more than one tensor")
        return self._append(parts, inputs, tensors[0])

    def _append(self, parts: Sequence[Part], inputs: Sequence[str], tensor: Any) -> str:
        """Add parts one after another; the first takes a tensor."""
        pixels = self.forms.pixels(inputs, tensor)
        for part in parts:
            value = str(len(self.result))
            if pixels is not None:
                part = part_of_tokens(part, pixels)
                self.forms.keep(value, inputs[0], part.layer)
            self.result.append(replace(part, inputs=tuple(inputs), value=value))
            inputs = [value]
        return inputs[0]

    def _reshaped(self, value: str, before: Sequence[int | None], after: Sequence[int | None]) -> str:
        """The value that an image or tokens are in another shape, tokens among them; "" for what isn't their pixels."""
        if self.forms.reshape(value, before, after):
            return value
        count = self.forms.boxes_at_pixel(value, before, after)
        if not count:
            return ""
        native = Anchors(count, autocast=False)
        own = self._append([Part("anchors", native, read_layer(native)[0], "Reshape")], [value], None)
        rows, columns = before[1:3]
        self.forms.known[own] = rows, None if columns is None else columns * count
        return own

    def _joins_tokens(self, values: Sequence[str], tensors: Sequence[Any], axis: int) -> bool:
        """Whether a concatenation puts tokens behind each other."""
        of_tokens = len(values) > 1 and all(value in self.forms.known for value in values)
        rows = all(tensor is not None and len(tensor.shape) == 3 for tensor in tensors)
        return axis in (1, -2) and of_tokens and rows

    def _join(self, values: Sequence[str], path: str) -> str:
        native = ConcatenatePixels(autocast=False)
        own = self._append([Part(path, native, read_layer(native)[0], "Concatenate")], values, None)
        self.forms.known[own] = None, 1
        return own

    def as_result(self, value: str, tensor: Any) -> str:
        """A value as the model gives it: tokens (N, L, C) are one more part.

        Raises:
            UnsupportedError: it is an image with its pixels in other rows.
        """
        if self.forms.pixels([value], tensor) is None:
            return value
        if len(tensor.shape) != 3:
            raise UnsupportedError("the model's result is an image's pixels in other rows")
        native = Tokens(autocast=False)
        return self._append([Part("tokens", native, read_layer(native)[0], "Tokens")], [value], None)

    def _functional(self, model: keras.Model, path: str, inputs: Sequence[str]) -> Any:
        if len(model.inputs) != len(inputs):
            raise UnsupportedError(f"{path}: it takes {len(model.inputs)} tensors, expected {len(inputs)}")
        values = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
        for call in in_order(model):
            taken = [values[id(tensor)] for tensor in call.input_tensors]
            results = keras.tree.flatten(self._called(call, path, taken))
            if len(results) != len(call.outputs):
                raise UnsupportedError(f"{_inside(path, call.operation.name)} gives more than one tensor")
            values |= {id(tensor): result for tensor, result in zip(call.outputs, results, strict=True)}
        self.last = model.output
        return keras.tree.map_structure(lambda tensor: values[id(tensor)], model.output)

    def _called(self, call: Any, path: str, inputs: Sequence[str]) -> Any:
        operation = call.operation
        if (simpler := spelled_out(operation, call.input_tensors)) is not None:
            return self._functional(simpler, path, inputs)
        given = keras.tree.flatten(call.arguments.args[:1])
        if isinstance(operation, kl.Concatenate) and len(given) != len(inputs):
            raise UnsupportedError(f"{_inside(path, operation.name)}: it joins an array of numbers")
        if isinstance(operation, kl.Layer):
            others = {name: value for name, value in _beside_tensors(call) if not _is_nothing(value)}
            if isinstance(operation, kl.Resizing):  # Keras has it among what it does to images in training.
                others.pop("training", None)
            # Keras tells layers of images to train by itself; it makes no difference to what does nothing in inference.
            known = [part for part in self.parts(operation, path) if part.layer is not None]
            if others and (known or private.layers_inside(operation)):
                raise UnsupportedError(f"{_inside(path, operation.name)} is called with {', '.join(others)}")
            if isinstance(operation, kl.MultiHeadAttention) and len(inputs) > 1:
                if len({*map(id, call.input_tensors)}) > 1:
                    raise UnsupportedError(
                        f"{_inside(path, operation.name)}: attention that isn't of tokens to themselves"
                    )
                inputs = inputs[:1]
            return self.layer(operation, _inside(path, operation.name), inputs, call.input_tensors)
        if type(operation).__name__ == "Reshape" and (own := self._same_pixels(call, inputs[0])):
            return own
        joins = type(operation).__name__ == "Concatenate" and len(given) == len(inputs)
        if joins and self._joins_tokens(inputs, call.input_tensors, operation.axis):
            return self._join(inputs, _inside(path, "concatenate_pixels"))
        name = _inside(path, type(operation).__name__.lower())  # its own name has a number that Keras counts up
        args, kwargs = call.arguments.args, call.arguments.kwargs
        try:
            if (several := parts_of_split(operation, args, kwargs)) is not None:
                return [self._append([*self.parts(each, name)], inputs, _first(call)) for each in several]
            natives = native_of(operation, args, kwargs)
        except UnsupportedError as error:
            raise UnsupportedError(f"{name}: {error}") from error
        inputs = [*inputs] * factors(operation, args)
        parts = [part for native in natives for part in self.parts(native, name)]
        return self._append(self._named(parts, (args, kwargs)), inputs, _first(call))

    def _named(self, parts: Sequence[Part], arguments: Any) -> Sequence[Part]:
        """The parts that a call of an operation is; one that is of a variable alone has the variable's path."""
        paths = [path for value in keras.tree.flatten(arguments) if (path := self.variables.get(id(value)))]
        if len(paths) == len(parts) == 1 and isinstance(parts[0].layer, OF_ONE_ARRAY):
            return [replace(parts[0], path=paths[0])]
        return parts

    def _same_pixels(self, call: Any, value: str) -> str:
        """The value that images or tokens are in another shape; "" for what isn't their pixels: see `_reshaped`."""
        before, after = call.input_tensors[0].shape, call.outputs[0].shape
        # Of images of unknown sizes a shape must tell how many there are, or what one gives may go to another.
        known = before[0] == after[0] and (None not in (*before[1:], *after[1:]) or (len(after) == 3 and before[0]))
        return self._reshaped(value, before, after) if self.channels_last and known else ""


def _first(call: Any) -> Any:
    """The first of the tensors that a call takes."""
    return call.input_tensors[0] if call.input_tensors else None


def _beside_tensors(call: Any) -> Iterator[tuple[str, Any]]:
    """The arguments of a layer's call that aren't its tensors."""
    places = enumerate(call.arguments.args[1:], 2)
    named = [*((f"argument {place}", value) for place, value in places), *call.arguments.kwargs.items()]
    yield from ((name, value) for name, value in named if not isinstance(value, keras.KerasTensor))


def _is_nothing(value: Any) -> bool:
    """Whether an argument is as if it weren't there: a model of several inputs has a mask of None for each."""
    return all(each is None or each is False for each in keras.tree.flatten(value))


def _after(layer: kl.Layer, tensor: Any) -> Any:
    """What a layer makes of a symbolic tensor; None where that isn't known."""
    try:
        return None if tensor is None else layer.compute_output_spec(tensor)
    except Exception:  # It may be anyone's code.
        return None


def _inside(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
