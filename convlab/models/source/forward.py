"""The lines in which a model computes its values, one after another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from ..layers.activations import Activation
from ..layers.arguments import argument
from ..layers.inputs import Inputs
from ..layers.joining import Add, Concatenate, Multiply, Subtract
from ..layers.layer import BatchNorm, Layer
from ..layers.outputs import Outputs
from ..layers.reading import INPUT
from .code import WIDTH

# What a value is called that is taken more than once, by the layer that joins it, or what comes of it, with others.
_ROLES: dict[type, str] = {Add: "shortcut", Subtract: "shortcut", Multiply: "features", Concatenate: "skip"}
# What a value is called that is taken once, but not by the next step; and one of the model's results.
_ALONE, _RESULT = "branch", "result"
# So many calls stand inside each other at most.
_DEPTH = 3


@dataclass(frozen=True, eq=False)
class Statement:
    """One value of a model.

    Attributes:
        template: the expression that computes it, with {0}, {1}, … for the values that it takes, {all} for all of them.
        inputs: the names of the values that it takes.
        value: its name.
        layer: what it computes, where that is one layer.
    """

    template: str
    inputs: tuple[str, ...]
    value: str
    layer: Layer | None = None

    def of(self, *values: str) -> str:
        """The expression of these values; one of two values is that of the first two and of each further one."""
        if len(values) > 2 and "{1}" in self.template and "{2}" not in self.template:
            return self.of(self.of(*values[:2]), *values[2:])
        return self.template.format(*values, all=", ".join(values))


# The variable of a model's image.
IMAGE: Mapping[str, str] = {INPUT: "x"}


def variables_of(inputs: Inputs) -> Mapping[str, str]:
    """The variables of a model's inputs: the names of several."""
    return IMAGE if len(inputs) == 1 else {value: argument(value) for value in inputs}


def is_reassigned(name: str) -> bool:
    """Whether lines may give a variable of this name another value.

    >>> is_reassigned("x"), is_reassigned("skip_2"), is_reassigned("skips")
    (True, True, False)
    """
    return name == "x" or re.sub(r"_\d+$", "", name) in {*_ROLES.values(), _ALONE, _RESULT}


def lines_of(
    steps: Sequence[Statement],
    result: str,
    fuses: bool = False,
    variables: Mapping[str, str] = IMAGE,
    returns: bool = True,
) -> list[str]:
    """The lines that compute steps in order and return a value.

    The variable is `x` wherever the next step alone takes a value; a value that is taken later has a name of its own.

    >>> norm, relu = BatchNorm.__new__(BatchNorm), Activation("relu")
    >>> steps = [Statement("self.conv({0})", ("input",), "a"), Statement("F.relu({0})", ("a",), "b", relu)]
    >>> lines_of([*steps, Statement("{0} + {1}", ("b", "input"), "c", Add())], "c", True)
    ['shortcut = x', 'x = F.relu(self.conv(x))', 'return x + shortcut']

    Args:
        steps: each behind those whose values it takes.
        result: the value that is returned.
        fuses: whether an activation or a batch norm stands round the call before it.
        variables: those of the model's inputs.
        returns: whether the last line may be `return` with the last expression.
    """
    return _Lines(steps, result, variables).written(fuses, returns)


class _Lines:
    def __init__(self, steps: Sequence[Statement], result: str, variables: Mapping[str, str]) -> None:
        self.steps, self.result, self.variables = steps, result, variables
        self.takers: dict[str, list[int]] = {result: [len(steps)]}
        for index, step in enumerate(steps):
            for value in step.inputs:
                self.takers.setdefault(value, []).append(index)
        self.names = dict(variables)

    def written(self, fuses: bool, returns: bool) -> list[str]:
        lines: list[str] = []
        for value, variable in self.variables.items():
            if self._is_kept(value, 0) and variable == "x":
                self.names[value] = self._free(value, 0)
                lines.append(f"{self.names[value]} = x")
        pending = ""
        for index, step in enumerate(self.steps):
            # The image still has its own name where the first step takes it.
            names = self.names if index else {**self.names, **self.variables}
            values = [names[value] for value in step.inputs]
            expression = step.of(pending or values[0], *values[1:])
            if index + 1 < len(self.steps) and fuses and self._goes_into_next(index, expression):
                pending, self.names[step.value] = expression, "x"
                continue
            pending = ""
            name = self._free(step.value, index + 1) if self._is_kept(step.value, index + 1) else "x"
            self.names[step.value] = name
            is_last = index + 1 == len(self.steps) and (returns or isinstance(step.layer, Outputs))
            lines.append(f"return {expression}" if is_last else f"{name} = {expression}")
        if not lines or not lines[-1].startswith("return "):
            lines.append(f"return {self.names[self.result]}")
        return lines

    def _is_kept(self, value: str, after: int) -> bool:
        """Whether a value is taken by another step than the next one."""
        return any(taker != after for taker in self.takers.get(value, []))

    def _free(self, value: str, after: int) -> str:
        """A name for a value that is kept, which no other value has that is still to be taken."""
        taken = {self.names[each] for each, takers in self.takers.items() if each in self.names and takers[-1] >= after}
        takers = self.takers[value]
        joining = (_ROLES.get(type(step.layer)) for step in self.steps[takers[-1] :])
        role = next(filter(None, joining), _ALONE)
        stem = role if len(set(takers)) > 1 else _ALONE
        if takers[-1] < len(self.steps) and isinstance(self.steps[takers[-1]].layer, Outputs):
            stem = _RESULT
        return next(name for n in count(1) if (name := stem if n == 1 else f"{stem}_{n}") not in taken)

    def _goes_into_next(self, index: int, expression: str) -> bool:
        """Whether a step's expression stands inside the next one."""
        value, after = self.steps[index].value, self.steps[index + 1]
        if self._is_kept(value, index + 1) or after.inputs != (value,):
            return False
        light = isinstance(after.layer, (Activation, BatchNorm))
        inside_call = after.template.count("{0}") == 1 and re.search(r"\w\(\{0\}", after.template)
        depth = len(re.findall(r"\w\(", expression))
        return bool(light and inside_call and depth < _DEPTH and len(after.of(expression)) < WIDTH - 20)
