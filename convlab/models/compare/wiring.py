"""What takes what in two models whose steps stand side by side, in words where it differs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from ...page.page import listed
from ..layers.activations import Activation, Affine
from ..layers.joining import COMMUTATIVE
from ..layers.layer import BatchNorm, Layer
from ..layers.reading import INPUT
from ..layers.steps import Step
from .alignment import Beside

_MOST_ORDERS = 6
# Where these come first, they normalise the image.
_NORMALISES = (Affine, BatchNorm)


class Wiring:
    """The graphs of two models, and which value of one is which of the other.

    A step that only one model has counts for each of its inputs: what takes its result takes in the other model what
    the step took.
    """

    def __init__(self, sequence: Sequence[Beside]) -> None:
        # The values of the first model that each value of each model may stand for.
        self._mine: dict[str, set[str]] = {INPUT: {INPUT}}
        self._theirs: dict[str, set[str]] = {INPUT: {INPUT}}
        self._mine_named: dict[str, str] = {INPUT: "the image"}
        self._theirs_named: dict[str, str] = {INPUT: "the image"}
        for mine, theirs in sequence:
            if mine is not None:
                self._mine[mine.value] = {mine.value}
                self._mine_named[mine.value] = _called(mine)
                if theirs is None:
                    self._mine[mine.value].update(*(self._mine[value] for value in mine.inputs))
            if theirs is not None:
                own = {mine.value} if mine is not None else set[str]().union(*(self._theirs[v] for v in theirs.inputs))
                self._theirs[theirs.value] = own
                self._theirs_named[theirs.value] = _called(mine or theirs)

    def other_inputs(self, mine: Step, theirs: Step) -> str:
        """How the inputs of two steps differ; "" if they are the same."""
        if self._agree(mine.inputs, theirs.inputs):
            return ""
        few = len(theirs.inputs) == len(mine.inputs) <= _MOST_ORDERS
        swapped = few and any(self._agree(mine.inputs, order) for order in permutations(theirs.inputs))
        if swapped and isinstance(mine.main, COMMUTATIVE):
            return ""
        takes = ", ".join(self._mine_named[value] for value in mine.inputs)
        instead = ", ".join(self._theirs_named[value] for value in theirs.inputs)
        kind = "swapped inputs" if swapped else "other inputs"
        return f"{kind}: the first takes the results of {takes}, the second those of {instead}."

    def _agree(self, mine: Sequence[str], theirs: Sequence[str]) -> bool:
        """Whether values may stand for each other, one by one."""
        both = zip(mine, theirs, strict=False)
        return len(mine) == len(theirs) and all(self._mine[one] & self._theirs[two] for one, two in both)

    def only_in_one(self, beside: Beside) -> str:
        """What a step is that only one of the models has, and where it stands."""
        step = beside.mine or beside.theirs
        assert step is not None
        lacking, having = ("second", "first") if beside.theirs is None else ("first", "second")
        named, known = (self._mine_named, self._mine) if beside.theirs is None else (self._theirs_named, self._theirs)
        where = "behind " + listed([named[value] for value in step.inputs])
        if step.inputs == (INPUT,):
            where = "on the image"
        on_image = any(INPUT in known[value] for value in step.inputs)
        cause = "normalised inputs: " if on_image and isinstance(step.main, _NORMALISES) else ""
        return f"{cause}the {lacking} model has no {in_words(step.main)}: the {having} has {_called(step)} {where}."


def _called(step: Step) -> str:
    return repr(step.path) if step.path else "its layer"


def in_words(layer: Layer) -> str:
    """What a layer is, as a user would call it.

    >>> in_words(Activation("relu")), in_words(Affine(0.5, -1.0))
    ('relu', 'affine (x * 0.5 - 1)')
    """
    if isinstance(layer, Activation):
        return layer.function
    if isinstance(layer, Affine):
        sign = "-" if layer.shift < 0 else "+"
        return f"affine (x * {layer.scale:.4g}" + (f" {sign} {abs(layer.shift):.4g})" if layer.shift else ")")
    return layer.kind
