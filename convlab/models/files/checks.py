"""Layers of a file of another program, held to the rules that convlab's own file has."""

from __future__ import annotations

from ...errors import ModelFileError
from ..layers.layer import Convolution, Layer
from ..layers.reading import Part
from .fields import FIELDS, excerpt
from .flow import Flow


def check_layer(where: str, part: Part, flow: Flow) -> None:
    """Check a layer's numbers, and that it takes what the layers before it give; `flow` goes on through it.

    Raises:
        ModelFileError: something is out of range, or doesn't fit.
    """
    layer = part.layer
    assert layer is not None
    options = layer.spec if isinstance(layer, Convolution) else layer
    for name, rule in FIELDS[layer.kind].items():
        value = rule.plain(getattr(options, name))
        if not rule.holds(value) and value != rule.default:
            raise _refused(where, f"{name} {excerpt(value)}", rule.expected)
    wrong = flow.through(layer, part.inputs, part.value)
    if wrong:
        raise _refused(where, *wrong)


def bytes_of(layer: Layer | None) -> int:
    """How many bytes a layer's arrays have."""
    arrays = [getattr(layer, name) for name in layer.arrays] if layer is not None else []
    return sum(array.nbytes for array in arrays if array is not None)


def _refused(where: str, got: str, expected: str) -> ModelFileError:
    hint = "the file isn't of a model that runs; it is left as it is."
    return ModelFileError(f"{where}: got {got}, expected {expected}.", hint=hint)
