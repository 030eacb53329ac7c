"""What a model with several inputs takes: images or rows of numbers for each, and of how many channels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from ...errors import ConvlabError
from ...page.page import listed
from ...truth.precision import rounded
from .activations import Activation, Softmax
from .arguments import argument
from .flattening import Flatten, Unflatten
from .joining import COMMUTATIVE, Divide, Joining, Subtract
from .layer import BatchNorm, Dense, Layer
from .ranks import rank_of
from .reading import INPUT, InputShape, Model, Part
from .shapes import Known, channels_taken, known_after
from .spatial import Size, shapes_in_words
from .steps import Step, steps

# What a model takes at once: an array for each of its inputs, by the name of the value.
Batch = dict[str, np.ndarray]
Inputs = Mapping[str, InputShape | None]
Taking = TypeVar("Taking", Step, Part)

# So many channels are tried of inputs, if there are so few of them, where the layers don't tell.
_FEW, _MOST_OPEN = range(1, 9), 3
_EACH_BY_EACH = (*COMMUTATIVE, Subtract, Divide)

ONE_IMAGE: Inputs = {INPUT: None}


def rounded_batch(batch: Batch, dtype: str) -> Batch:
    """A batch, rounded to a dtype."""
    return {value: rounded(x, dtype) for value, x in batch.items()}


def layers_in(steps: Sequence[Step]) -> list[Layer]:
    """The layers of steps, one after another."""
    return [layer for step in steps for layer in step.layers]


def behind(nodes: Sequence[Taking], value: str, alone: bool = False) -> list[Taking]:
    """The nodes of a graph that take a value or what is made of it; `alone`, those that take nothing else."""
    values, found, every = {value}, list[Taking](), all if alone else any
    for node in nodes:
        if every(each in values for each in node.inputs):
            values.add(node.value)
            found.append(node)
    return found


def takes_rows(layers: Sequence[Layer | None]) -> bool:
    """Whether what takes rows comes first, perhaps behind a flattening, which leaves rows of numbers as they are."""
    first = next((layer for layer in layers if not isinstance(layer, _OF_ROWS_TOO)), None)
    return isinstance(first, (Dense, Unflatten)) or (isinstance(first, BatchNorm) and first.rank == 0)


_OF_ROWS_TOO = (Flatten, Activation, Softmax, Joining)


def given_values(model: Model, size: Size | None) -> dict[str, Known]:
    """What is known of a model's inputs, if its images have a size; of one that is all."""
    if len(model.inputs) == 1:
        return {INPUT: Known(size=size)}
    return known_inputs(steps(model), model.inputs, size)


def known_inputs(steps: Sequence[Step], inputs: Inputs, size: Size | None) -> dict[str, Known]:
    """What is known of several inputs: of what the framework doesn't tell, by the layers that take them.

    How many channels one has that no layer takes alone, is found from how many a layer behind it lacks: as many for
    each of these inputs if that fits, or else one after another. There are 0 where that doesn't tell either.

    Args:
        steps: of the model.
        inputs: see `Model.inputs`.
        size: of the images whose only size isn't known.
    """
    known = {value: _alone(steps, value, shape, size) for value, shape in inputs.items()}
    open_ = [value for value, each in known.items() if not each.channels]
    count = _solved(steps, known, open_)
    if not open_ or (count and not channels_lacking(steps, _with(known, open_, count))):
        return _with(known, open_, count)
    one_by_one = _with(known, open_, 1)
    for value in open_:
        one_by_one = _with(one_by_one, [value], _solved(behind(steps, value), one_by_one, [value]))
    if all(one_by_one[value].channels for value in open_) and not channels_lacking(steps, one_by_one):
        return one_by_one
    tried = itertools.product(_FEW, repeat=len(open_)) if len(open_) <= _MOST_OPEN else ()
    several = (dict(zip(open_, counts, strict=True)) for counts in tried)
    fitting = ({**known, **{value: known[value]._replace(channels=n) for value, n in each.items()}} for each in several)
    return next((each for each in fitting if not channels_lacking(steps, each)), one_by_one)


def _alone(steps: Sequence[Step], value: str, shape: InputShape | None, size: Size | None) -> Known:
    """What the framework and the layers that take an input alone tell of it."""
    taken = map(channels_taken, layers_in(behind(steps, value, alone=True)))
    channels = (shape[0] if shape else None) or next(filter(None, taken), 0)
    if len(shape) == 1 if shape else takes_rows(layers_in(behind(steps, value))):
        return Known(channels, None, True)
    own: Size | None = None if shape is None or None in shape[1:] else shape[1:]  # type: ignore[assignment]
    return Known(channels, own or size)


def inputs_in_words(parts: Sequence[Part], inputs: Inputs, last: bool = False) -> str:
    """What a model takes, in words; `last` for frameworks of images NHWC."""
    images = shapes_in_words(rank_of([part.layer for part in parts]), last)
    layers = {value: [part.layer for part in behind(parts, value)] for value in inputs}
    rows = {value for value in inputs if takes_rows(layers[value])}
    if len(inputs) == 1 and isinstance(parts[0].layer, Flatten):
        rows = set()  # of images
    words = {value: "rows (N, C)" if value in rows else images for value in inputs}
    return listed([f"{what} for {argument(value)}" if len(inputs) > 1 else what for value, what in words.items()])


def shapes_of(model: Model, size: Size | None) -> Inputs:
    """The shapes of a model's inputs, of which that of one isn't looked for."""
    if len(model.inputs) == 1:
        return ONE_IMAGE
    known, of_any_size = given_values(model, size), (None,) * model.rank
    return {
        value: (each.channels or None, *(() if each.rows else each.size or of_any_size))
        for value, each in known.items()
    }


def _with(known: Mapping[str, Known], several: Sequence[str], channels: int) -> dict[str, Known]:
    return {value: each._replace(channels=channels) if value in several else each for value, each in known.items()}


def _solved(steps: Sequence[Step], known: Mapping[str, Known], several: Sequence[str]) -> int:
    """How many channels each of some inputs has, so that the first layer that lacks some gets what it takes; or 0."""
    one, two = (channels_lacking(steps, _with(known, several, count)) for count in (1, 2))
    if one == two or one % (one - two):
        return 0
    return max(0, 1 + one // (one - two))


def channels_lacking(steps: Sequence[Step], given: Mapping[str, Known]) -> int:
    """How many channels the first layer lacks that doesn't get as many as it takes, negative for too many; or 0."""
    values = dict(given)
    for step in steps:
        inputs = [values.get(value, Known()) for value in step.inputs]
        for layer in step.layers:
            count, taken = inputs[0].channels, channels_taken(layer)
            if count and taken not in (0, count):
                return taken - count
            # One channel counts for all.
            counts = {each.channels for each in inputs if each.channels > 1}
            if isinstance(layer, _EACH_BY_EACH) and len(counts) > 1:
                return max(counts) - min(counts)
            try:
                inputs = [known_after(layer, inputs)]
            except ConvlabError:
                inputs = [Known()]
        values[step.value] = inputs[0]
    return 0
