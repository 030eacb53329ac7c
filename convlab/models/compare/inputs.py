"""What users give as `inputs`, and which inputs of two models belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import ModelError
from ...page.page import listed
from ...truth.oracle import as_numpy
from ..layers.arguments import input_name
from ..layers.inputs import Batch
from ..layers.reading import Model
from ..layers.spatial import SHAPES, WHAT, Size

# An example of what a model takes: of several inputs a tuple, or by their names.
Example = np.ndarray | tuple[np.ndarray, ...] | dict[str, np.ndarray]


def images_of(inputs: Any) -> list[Example]:
    """What users give as `inputs`, as a list of what holds arrays in float64: see `batches`."""
    several = inputs if isinstance(inputs, list) else [inputs]
    if not several or any(isinstance(each, (tuple, Mapping)) and not each for each in several):
        raise ModelError("inputs: got no image, expected some.", hint="leave it out for random ones.")
    return [*map(_example, several)]


def _example(given: Any) -> Example:
    if isinstance(given, Mapping):
        return {str(name): _array(each) for name, each in given.items()}
    return tuple(map(_array, given)) if isinstance(given, tuple) else _array(given)


def _array(given: Any) -> np.ndarray:
    images = as_numpy(given, "inputs")
    if not images.size:
        raise ModelError("inputs: got no image, expected some.", hint="leave it out for random ones.")
    if not 2 <= images.ndim <= 5:
        raise ModelError(
            f"inputs: got shape {images.shape}, expected (N, C, H, W), or (N, C) for a model of rows.",
            hint="x[None] of one row of numbers." if images.ndim == 1 else "x.transpose(0, 3, 1, 2) of NHWC.",
        )
    if not np.isfinite(images).all():
        count = int((~np.isfinite(images)).sum())
        raise ModelError(
            f"inputs: got {count} values that are NaN or infinite, expected finite ones.",
            hint="a comparison of such values says nothing.",
        )
    return np.asarray(images, np.float64)


def batches(given: Sequence[Example] | None, model: Model) -> list[Batch] | None:
    """What users give as `inputs` of a model, with an axis of images where it is one image.

    Of several inputs a tuple has an array for each, and a dictionary has them by name. None comes back for a tuple of a
    model that isn't known as a whole.

    Raises:
        ModelError: an array has too many axes or too few, or there are more or fewer of them than inputs.
    """
    if given is None:
        return None
    if len(model.inputs) == 1:
        several = any(isinstance(example, tuple) and len(example) > 1 for example in given)
        if several and not model.whole:  # its inputs aren't known
            return None
        if several:
            raise ModelError(
                "inputs: got a tuple of several arrays, which is for several inputs, expected an array for one.",
                hint="a list holds several batches.",
            )
        flat = [each for example in given for each in (example if isinstance(example, tuple) else (example,))]
        return [_batch((each,), model) for each in flat]
    return [_batch(_in_order(example, model), model) for example in given]


def _in_order(example: Example, model: Model) -> tuple[np.ndarray, ...]:
    """The arrays of a dictionary in the order of a model's inputs; others as they are."""
    names = [*map(input_name, model.inputs)]
    if not isinstance(example, dict):
        return example if isinstance(example, tuple) else (example,)
    if {*names} != {*example}:
        raise ModelError(
            f"inputs: got arrays for {listed(example)}, expected {listed(names)}.", hint="a tuple goes by their order."
        )
    return tuple(example[name] for name in names)


def _batch(arrays: Sequence[Any], model: Model) -> Batch:
    if len(arrays) != len(model.inputs) or isinstance(arrays[0], dict):
        names = listed([*map(input_name, model.inputs)])
        raise ModelError(
            f"inputs: got {_count(arrays)}, expected {_count(model.inputs)} ({names}).",
            hint="a model of several inputs takes a tuple of arrays, or a dictionary by their names.",
        )
    batch = {value: _with_images(x, model.rank) for value, x in zip(model.inputs, arrays, strict=True)}
    if len({len(x) for x in batch.values()}) > 1:
        shapes = listed([str(x.shape) for x in arrays])
        raise ModelError(f"inputs: got shapes {shapes}, expected as many images in each.", hint="N is the first axis.")
    return batch


def _count(several: Any) -> str:
    return f"{len(several)} array{'s' if len(several) > 1 else ''}"


def _with_images(x: np.ndarray, rank: int) -> np.ndarray:
    if x.ndim not in (2, rank + 1, rank + 2):
        raise ModelError(
            f"inputs: got shape {x.shape}, expected {SHAPES[rank]}, or (N, C) for a model of rows.",
            hint=f"the model's layers are for {WHAT[rank]}.",
        )
    return x[None] if x.ndim == rank + 1 and x.ndim > 2 else x


def one_size(images: Sequence[Batch]) -> Size | None:
    """The one size of all images, where they have one."""
    sizes = {x.shape[2:] for batch in images for x in batch.values() if x.ndim > 2}
    return sizes.pop() if len(sizes) == 1 else None


def inputs_taken(model: Model) -> str:
    """How many inputs a model takes, with the names of several."""
    names = [*map(input_name, model.inputs)]
    return f"{len(names)} inputs ({listed(names)})" if len(names) > 1 else "one input"


def called_alike(a: Model, b: Model) -> Model:
    """The second model, whose inputs are called like those of the first: by their names, or else by their order.

    It is as it was if it has more inputs than the first, or fewer.
    """
    if len(a.inputs) != len(b.inputs) or [*a.inputs] == [*b.inputs]:
        return b
    return renamed(b, dict(zip(b.inputs, b.inputs if {*a.inputs} == {*b.inputs} else a.inputs, strict=True)))


def other_order(a: Model, b: Model) -> str:
    """How the order differs in which two models take inputs of the same names; "" if it doesn't."""
    if [*a.inputs] == [*b.inputs] or {*a.inputs} != {*b.inputs}:
        return ""
    first, second = (listed([*map(input_name, model.inputs)]) for model in (a, b))
    return f"Called by position, the first takes {first}, the second {second}: here each gets its own by name."


def renamed(model: Model, values: Mapping[str, str]) -> Model:
    """A model whose inputs are called otherwise."""
    parts = [replace(part, inputs=tuple(values.get(each, each) for each in part.inputs)) for part in model.parts]
    return replace(model, parts=parts, inputs={values[value]: shape for value, shape in model.inputs.items()})
