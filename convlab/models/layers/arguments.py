"""The inputs of a model: what they are called in its graph, and the arguments of code."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import UnsupportedError
from .reading import INPUT


def input_values(names: Sequence[str]) -> tuple[str, ...]:
    """The values of inputs that have these names: arguments, or what a file calls them.

    >>> input_values(["x"]), input_values(["left", "right"])
    (('input',), ('input left', 'input right'))
    """
    return (INPUT,) if len(names) == 1 else tuple(f"{INPUT} {name}" for name in names)


def argument(value: str) -> str:
    """What an argument for one of several inputs is called: its name, made valid.

    >>> argument("input left"), argument("input images/right:0"), argument("input lambda")
    ('left', 'images_right_0', 'lambda_')
    """
    name = re.sub(r"\W", "_", input_name(value))
    name = name if name[:1].isalpha() or name[:1] == "_" else f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in _MODULES else name


# What code of the frameworks calls what it imports.
_MODULES = ["F", "jax", "jnp", "keras", "lab", "layers", "math", "nn", "nnx", "self", "torch"]


def first_example(inputs: Any) -> Any:
    """The example of a model's first input, by examples as `convlab.models.adapters.Models.read` takes them."""
    several = [*inputs.values()] if isinstance(inputs, Mapping) else inputs
    return several[0] if isinstance(several, (tuple, list)) else several


def input_name(value: str) -> str:
    """The name of one of several inputs, by its value: see `input_values`."""
    return value.removeprefix(f"{INPUT} ")


def examples_of(inputs: Any, names: Sequence[str]) -> list[Any] | None:
    """The examples for arguments of these names, in order, of what `convlab.models.adapters.Models.read` takes.

    >>> examples_of({"right": 2, "left": 1}, ["left", "right"]), examples_of((1, 2), ["x"]), examples_of(None, ["x"])
    ([1, 2], [1], None)
    >>> examples_of(1, ["left", "right"])
    Traceback (most recent call last):
    convlab.errors.UnsupportedError: it takes 2 arguments (left, right), expected an example for each; ...

    Raises:
        UnsupportedError: there are more arguments, or others.
    """
    if inputs is None or len(names) == 1:
        return None if inputs is None else [first_example(inputs)]
    if isinstance(inputs, Mapping) and {*inputs} == {*names}:
        return [inputs[name] for name in names]
    if not isinstance(inputs, tuple) or len(inputs) != len(names):
        what = f"it takes {len(names)} arguments ({', '.join(names)}), expected an example for each"
        raise UnsupportedError(f"{what}; inputs= takes a tuple of arrays, or a dictionary by these names")
    return [*inputs]


def arguments_needed(function: Callable[..., Any], *others: str) -> list[str]:
    """The names of the arguments without defaults that a function takes by position, without some.

    >>> arguments_needed(lambda F, x, y, weight, train=True: None, "F", "weight")
    ['x', 'y']
    """
    parameters = inspect.signature(function).parameters.values()
    needed = [each.name for each in parameters if each.kind in _BY_POSITION and each.default is each.empty]
    return [name for name in needed if name not in others]


_BY_POSITION = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
