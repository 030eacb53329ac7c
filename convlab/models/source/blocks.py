"""Blocks of a model that differ only in the arguments of their layers: one class for each kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from ..layers.joining import Add
from .code import Code, SourceCall, is_same, literal
from .forward import IMAGE, Statement, lines_of


@dataclass(frozen=True, eq=False)
class Body:
    """What stands in a class.

    Attributes:
        attributes: what the constructor assigns, and where.
        steps: what is computed.
        items: the layers that are called in turn, if the class is nothing else; None otherwise.
        variables: those of what is given.
    """

    attributes: list[tuple[str, Any]]
    steps: list[Statement]
    items: list[Any] | None = None
    variables: Mapping[str, str] = field(default_factory=lambda: IMAGE)

    def blocks(self) -> Iterator[Block]:
        """The blocks inside, each behind those that are inside itself."""
        for _, value in [*self.attributes, *(("", item) for item in self.items or [])]:
            yield from _blocks(value)

    def key(self) -> str:
        """What is the same for all blocks of a kind: the names, what is made, and what is computed."""
        forward = lines_of(self.steps, self.steps[-1].value, fuses=True)
        return repr(([(target, _key(value)) for target, value in self.attributes], forward))


class Block:
    """A part of a model that has a class.

    Attributes:
        name: the last part of its name in the model.
        body: what stands in the class.
        made: the call that makes it, once its class is known.
    """

    def __init__(self, name: str, body: Body) -> None:
        self.name, self.body = name, body
        self.made: SourceCall | None = None

    def __repr__(self) -> str:
        return str(self.made)


def _blocks(value: Any) -> Iterator[Block]:
    if isinstance(value, Block):
        yield from value.body.blocks()
        yield value
    elif isinstance(value, (SourceCall, list)):
        for inner in value.arguments.values() if isinstance(value, SourceCall) else value:
            yield from _blocks(inner)


def _key(value: Any) -> Any:
    if isinstance(value, Block):
        return value.body.key()
    if isinstance(value, SourceCall):
        return value.function, [(name, _key(inner)) for name, inner in value.arguments.items()]
    if isinstance(value, list):
        return [_key(inner) for inner in value]
    return str(value) if isinstance(value, Code) else ""


def parametrised(
    blocks: Iterator[Block], passed: Sequence[str], name_of: Callable[[Block, Mapping[str, Body]], str]
) -> list[tuple[str, Body, list[str]]]:
    """The classes of blocks: names, bodies, and the parameters in which the blocks of a kind differ.

    Args:
        blocks: each behind those inside it; they learn how they are made.
        passed: what each constructor hands on.
        name_of: a name for the class of a block, other than those of the classes before it.
    """
    kinds: dict[str, list[Block]] = {}
    for block in blocks:
        kinds.setdefault(block.body.key(), []).append(block)
    result: list[tuple[str, Body, list[str]]] = []
    for alike in kinds.values():
        name = name_of(alike[0], {each: body for each, body, _ in result})
        body, parameters = _parameters([block.body for block in alike])
        for index, block in enumerate(alike):
            arguments = {each: values[index] for each, values in parameters.items()}
            handed = {each: Code(each) for each in passed}
            block.made = SourceCall(name, arguments | handed, positional=min(2, len(arguments)))
        result.append((name, body, [*parameters]))
    return result


def _parameters(bodies: Sequence[Body]) -> tuple[Body, dict[str, list[Any]]]:
    """The body of the class, with parameters where bodies differ, and the parameters' values in each body."""
    leaves = [[*_leaves([value for _, value in body.attributes])] for body in bodies]
    different: list[list[Any]] = []
    names: list[list[str]] = []
    places: dict[int, int] = {}
    for place, group in enumerate(zip(*leaves, strict=True)):
        values = [value for _, value in group]
        if all(is_same(value, values[0]) for value in values):
            continue
        written = [literal(value) for value in values]
        known = next((at for at, others in enumerate(different) if [literal(each) for each in others] == written), None)
        if known is None:
            known = len(different)
            different.append(values)
            names.append([])
        names[known].append(group[0][0])
        places[place] = known
    parameters: dict[str, list[Any]] = {}
    chosen: list[str] = []
    for values, several in zip(different, names, strict=True):
        name = _name(several, [*parameters])
        parameters[name] = values
        chosen.append(name)
    counted = iter(range(len(leaves[0])))
    first = bodies[0]
    attributes = [
        (target, _with_parameters(value, counted, {at: chosen[known] for at, known in places.items()}))
        for target, value in first.attributes
    ]
    return replace(first, attributes=attributes), parameters


def _name(several: Sequence[str], taken: Sequence[str]) -> str:
    """A name for a parameter, of those of the arguments that it stands for."""
    stems = {name.removeprefix("in_").removeprefix("out_") for name in several if name.startswith(("in_", "out_"))}
    both = {name.partition("_")[0] for name in several if name.startswith(("in_", "out_"))}
    name = min(stems) if both == {"in", "out"} else several[0]
    number = 1
    while (free := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    return free


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The arguments in what is made, in order, with the names of their parameters."""
    if isinstance(value, Block):
        value = value.made
    if isinstance(value, SourceCall):
        for inner, argument in value.arguments.items():
            yield from _leaves(argument, inner)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each, name)
    else:
        yield name, value


def _with_parameters(value: Any, counted: Iterator[int], names: dict[int, str]) -> Any:
    """What is made, with parameters in the place of arguments; they are counted as `_leaves` gives them."""
    if isinstance(value, Block):
        value = value.made
    if isinstance(value, SourceCall):
        arguments = {name: _with_parameters(each, counted, names) for name, each in value.arguments.items()}
        return replace(value, arguments=arguments)
    if isinstance(value, list):
        return [_with_parameters(each, counted, names) for each in value]
    place = next(counted)
    return Code(names[place]) if place in names else value


def class_name(block: Block, others: Mapping[str, Body]) -> str:
    """A name for the class of a block: that of its place in the model, or for a number what it is."""
    plain = _capitals(block.name)
    if not plain[:1].isalpha():
        plain = "ResidualBlock" if any(isinstance(step.layer, Add) for step in block.body.steps) else "Block"
    if plain in others:
        known = {target for target, _ in others[plain].attributes}
        more = [target for target, _ in block.body.attributes if target not in known and "_before" not in target]
        plain = _capitals(more[0].removeprefix("self.")).lstrip("0123456789") + plain if more else plain
    taken = ["Model", *others]
    return next(name for n in count(1) if (name := plain if n == 1 else f"{plain}{n}") not in taken)


def _capitals(name: str) -> str:
    """A name of a class, of that of an attribute."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"\W|_", name))
