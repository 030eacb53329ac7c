"""How two graphs differ in what takes what, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

from ...page.page import listed
from ..layers.activations import Affine
from ..layers.arguments import input_name
from ..layers.channels import ChannelSlice, Chunk
from ..layers.layer import BatchNorm, Layer
from ..layers.norms import ChannelAffine
from ..layers.outputs import Outputs, are_alike
from ..layers.reading import INPUT
from ..layers.steps import Step
from .alignment import Alignment, Beside
from .differences import in_words

# Of more inputs it takes too long to try every order.
_MOST_SWAPPED = 4
# Where these come first, they normalise the image.
_NORMALISES = (Affine, BatchNorm, ChannelAffine)


def other_inputs(alignment: Alignment, mine: Step, theirs: Step) -> str:
    """How the inputs of two steps differ; "" if they are the same."""
    if alignment.agree(mine, theirs):
        return _other_names(mine.main, theirs.main)
    takes, instead = _takes(alignment, mine), _takes(alignment, theirs, second=True)
    kind = "swapped" if alignment.swapped(mine, theirs) else "other"
    if isinstance(mine.main, Outputs) and isinstance(theirs.main, Outputs):
        both = listed(takes), listed(instead)
        return f"{kind} results: the first model gives those of {both[0]}, the second those of {both[1]}."
    return (
        f"{kind} inputs: the first takes the results of {', '.join(takes)}, the second those of {', '.join(instead)}."
    )


def swapped_inputs(first: Sequence[Step], second: Sequence[Step], inputs: Sequence[str]) -> str:
    """How several inputs of the second model are swapped, if all steps take the same but for that; "" if they don't."""
    if not 1 < len(inputs) <= _MOST_SWAPPED:
        return ""
    for order in permutations(inputs):
        names = dict(zip(inputs, order, strict=True))
        steps = [replace(step, inputs=tuple(names.get(value, value) for value in step.inputs)) for step in second]
        alignment = Alignment(first, steps)
        if all(mine and theirs and alignment.agree(mine, theirs) for mine, theirs in alignment.sequence()):
            apart = [(value, own) for value, own in names.items() if value != own]
            takes = [f"{input_name(value)!r} as the first takes {input_name(own)!r}" for value, own in apart]
            return f"swapped inputs: the second model takes {listed(takes)}." if takes else ""
    return ""


def _other_names(mine: Layer, theirs: Layer) -> str:
    """How the names of results differ, where both have some."""
    if not isinstance(mine, Outputs) or not isinstance(theirs, Outputs) or are_alike(mine.names, theirs.names):
        return ""
    return f"other names: the first calls its results {listed(mine.names)}, the second {listed(theirs.names)}."


def only_in_one(alignment: Alignment, beside: Beside) -> str:
    """What a step is that only one of the models has, and where it stands."""
    step, second = beside.mine or beside.theirs, beside.mine is None
    assert step is not None
    lacking, having = ("first", "second") if second else ("second", "first")
    where = "on the image" if step.inputs == (INPUT,) else f"behind {listed(_takes(alignment, step, second))}"
    behind = alignment.theirs_behind if second else alignment.mine_behind
    on_image = any(not behind(value) <= {*alignment.first} for value in step.inputs)
    cause = "normalised inputs: " if on_image and isinstance(step.main, _NORMALISES) else ""
    return f"{cause}the {lacking} model has no {in_words(step.main)}: the {having} has {_called(step)} {where}."


def _takes(alignment: Alignment, step: Step, second: bool = False) -> list[str]:
    """What a step takes, by the first model's paths where it has that."""
    steps = alignment.second if second else alignment.first
    named = []
    for value in step.inputs:
        before = alignment.counterpart(value) if second else None
        own = before or steps.get(value)
        named.append(_called(own) if own else _input_called(value))
    return named


def _input_called(value: str) -> str:
    return "the image" if value == INPUT else f"the input {input_name(value)!r}"


def _called(step: Step) -> str:
    return (repr(step.path) if step.path else "its layer") + _which(step.main)


def _which(layer: Layer) -> str:
    """Which channels a layer takes: the parts of a split have no names of their own in code."""
    if isinstance(layer, Chunk):
        return f" (part {layer.index + 1} of {layer.count})"
    if isinstance(layer, ChannelSlice):
        return f" (channels {layer.start}:{layer.stop or ''})"
    return ""
