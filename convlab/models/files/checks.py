"""Layers of a file of another program, held to the rules that convlab's own file has."""

from __future__ import annotations

from ...errors import ModelFileError
from ..layers.layer import Convolution, Layer
from ..layers.reading import Part
from .fields import FIELDS, excerpt
from .flow import Flow


def check_options(where: str, layer: Layer) -> None:
    """Check a layer's numbers and names.

    Raises:
        ModelFileError: one is out of range.
    """
    options = layer.spec if isinstance(layer, Convolution) else layer
    for name, rule in FIELDS[layer.kind].items():
        given = getattr(options, name)
        try:
            value = rule.plain(given)
            holds = value == rule.default or rule.holds(value)
        except (ArithmeticError, TypeError, ValueError):
            holds = False
        if not holds:
            raise _refused(where, f"{name} {excerpt(given)}", rule.expected)


def check_flow(where: str, part: Part, flow: Flow) -> None:
    """Check that a layer takes what the layers before it give; `flow` goes on through it.

    Raises:
        ModelFileError: it takes something else.
    """
    assert part.layer is not None
    wrong = flow.through(part.layer, part.inputs, part.value)
    if wrong:
        raise _refused(where, *wrong)


def bytes_of(layer: Layer | None) -> int:
    """How many bytes a layer's arrays have."""
    arrays = [getattr(layer, name) for name in layer.arrays] if layer is not None else []
    return sum(array.nbytes for array in arrays if array is not None)


def _refused(where: str, got: str, expected: str) -> ModelFileError:
    hint = "the file isn't of a model that runs; it is left as it is."
    return ModelFileError(f"{where}: got {got}, expected {expected}.", hint=hint)
