"""Pieces of source: calls, values, and lines that are broken as black breaks them."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WIDTH = 100
# What ends the arguments that have a line each, until the source is broken into lines.
EXPLODED = ",\n"
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


class Code(str):
    """An expression that is written as it is."""


@dataclass(frozen=True, eq=False)
class SourceCall:
    """A call of a function or a class, before it is written.

    Attributes:
        function: how the source calls it.
        arguments: by parameter; those that equal the default aren't written.
        defaults: by parameter.
        positional: how many parameters are written without their names.
        exploded: whether each argument has a line of its own.
    """

    function: str
    arguments: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    positional: int = 0
    exploded: bool = False

    @property
    def rest(self) -> str:
        """The arguments as they are written, each with a comma before it."""
        return "".join(f", {each}" for each in self._written())

    def _written(self) -> list[str]:
        written: list[str] = []
        by_position = True
        for index, (name, value) in enumerate(self.arguments.items()):
            if name in self.defaults and is_same(brief(value), brief(self.defaults[name])):
                by_position = False
                continue
            by_position = by_position and index < self.positional
            written.append(literal(value) if by_position else f"{name}={literal(value)}")
        return written

    def __str__(self) -> str:
        inside = ", ".join(self._written())
        return f"{self.function}({inside}{EXPLODED if self.exploded and inside else ''})"


def is_name(text: str) -> bool:
    """Whether a text can be a variable."""
    return text.isidentifier() and not keyword.iskeyword(text)


def is_same(value: object, other: object) -> bool:
    """Whether two arguments are the same one, also of the same type.

    >>> is_same(1, True), is_same((1, 1), (1, 1))
    (False, True)
    """
    return type(value) is type(other) and bool(value == other)


def call_of(function: str, made: Callable[..., Any], /, **arguments: Any) -> SourceCall:
    """A call of what `made` is, whose signature tells the order of the arguments and their defaults.

    Required parameters are written without names, and so is a number that comes first.

    >>> print(call_of("nn.Dropout", lambda rate=0.5, axes=(): None, rate=0.2, axes=()))
    nn.Dropout(0.2)
    """
    parameters = parameters_of(made)
    ordered = {name: arguments[name] for name in parameters if name in arguments}
    ordered |= {name: value for name, value in arguments.items() if name not in parameters}
    defaults = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
    by_position = [name for name, each in parameters.items() if each.kind is not each.KEYWORD_ONLY and name in ordered]
    positional = sum(name not in defaults for name in by_position)
    first = ordered.get(next(iter(parameters), ""))
    is_number = isinstance(first, (int, float)) and not isinstance(first, bool)
    return SourceCall(function, ordered, defaults, positional or int(bool(by_position) and is_number))


def parameters_of(made: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters, in order, of what is called."""
    parameters = inspect.signature(made).parameters.values()
    named = [each for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    return {each.name: each for each in named if each.name != "self"}


def container(function: str, items: Iterable[Any]) -> SourceCall:
    """A call with items, each on a line of its own if there are several: a container of layers."""
    named = {str(index): item for index, item in enumerate(items)}
    return SourceCall(function, named, positional=len(named), exploded=len(named) > 2)


def brief(value: Any) -> Any:
    """A number for equal ones of one, two or three axes, which most frameworks take as well.

    >>> brief((3, 3)), brief((3, 1)), brief(2), brief((1, 1, 1))
    (3, (3, 1), 2, 1)
    """
    if isinstance(value, (tuple, list)):
        alike = len(value) == 2 or (0 < len(value) < 4 and all(isinstance(each, int) for each in value))
        return value[0] if alike and len({*value}) == 1 else tuple(value)
    return value


def literal(value: Any) -> str:
    """A value as source.

    >>> literal((1, 2.5)), literal("same"), literal(float("-inf")), literal([Code("a")])
    ('(1, 2.5)', '"same"', '-math.inf', '[a]')
    """
    if isinstance(value, (Code, SourceCall)):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "math.inf" if value > 0 else "-math.inf"
    return repr(value)


def imports(code: str, lines: Mapping[str, str]) -> str:
    """The lines of those names that code uses, in the order of `lines`; an empty one stands between groups.

    >>> imports("nn.Linear(x: Tensor)", {"Tensor": "from torch import Tensor", "nn": "from torch import nn"})
    'from torch import Tensor, nn'
    """
    used: list[str] = []
    for name, line in lines.items():
        source, _, what = line.partition(" import ")
        if line and not re.search(rf"(?<![\w.]){name}\b", code):
            continue
        if used and line.startswith("from ") and used[-1].startswith(f"{source} import "):
            used[-1] += f", {what}"
        else:
            used.append(line)
    broken = "\n".join(line if len(line) <= WIDTH else _name_by_name(line) for line in used)
    return re.sub(r"\n{3,}", "\n\n", broken).strip("\n")


def _name_by_name(line: str) -> str:
    """An import with a line for each of its names."""
    source, _, names = line.partition(" import ")
    lines = [f"    {name}," for name in sorted(names.split(", "))]
    return "\n".join([f"{source} import (", *lines, ")"])


def formatted(line: str, indent: int) -> list[str]:
    r"""A line of source as black writes it: what doesn't fit is broken at its last pair of brackets.

    >>> print(*formatted("x = f(a, [b, c]" + EXPLODED + ")", 0), sep="\n")
    x = f(
        a,
        [b, c],
    )
    """
    if not line:
        return [""]
    start, end = _last_brackets(line)
    if start > 0 and line[start - 1] == ")" and EXPLODED not in line and indent + start + 1 > WIDTH:
        start, end = _last_brackets(line[:start])  # the call before this one, whose result it calls
    while start > 0 and end == start + 1 and "." in line[:start]:
        start, end = _last_brackets(line[: line.rindex(".", 0, start)])  # a method without arguments of what is broken
    inside = line[start + 1 : end]
    broken = EXPLODED in inside
    if start < 0 or not inside or (not broken and indent + len(line) <= WIDTH):
        return [" " * indent + line]
    items = _items(inside)
    alone = ", ".join(items)
    first, last = " " * indent + line[: start + 1], " " * indent + line[end:]
    if not broken and indent + 4 + len(alone) <= WIDTH:
        return [first, " " * (indent + 4) + alone, last]
    comma = "," if len(items) > 1 else ""
    return [first, *(each for item in items for each in formatted(f"{item}{comma}", indent + 4)), last]


def _last_brackets(line: str) -> tuple[int, int]:
    """Where the brackets begin and end that a line ends with; -1 if it ends with none."""
    stripped = line.rstrip(",:")
    if not stripped or stripped[-1] not in _BRACKETS.values():
        return -1, -1
    depth = 0
    for position in range(len(stripped) - 1, -1, -1):
        depth += (stripped[position] in _BRACKETS.values()) - (stripped[position] in _BRACKETS)
        if not depth:
            return position, len(stripped) - 1
    return -1, -1


def _items(inside: str) -> list[str]:
    """What stands between the outermost commas."""
    items, depth = [""], 0
    for character in inside:
        depth += (character in _BRACKETS) - (character in _BRACKETS.values())
        if character == "," and not depth:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]
