"""A model as classes: one for the whole, and one for each kind of block inside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..adapters import free_name
from ..layers.inputs import ONE_IMAGE, Inputs
from ..layers.reading import INPUT, Part
from .blocks import Block, Body, class_name, parametrised
from .code import SourceCall, container, formatted, imports, is_name
from .forward import IMAGE, Statement, lines_of, variables_of
from .layers import Written, layer


@dataclass(frozen=True)
class Idiom:
    """How a framework's users write a class.

    Attributes:
        written: how a layer is written.
        imports: the lines of the names that the source may use; an empty one stands between groups.
        base: the base class, as the source calls it.
        owner: the base class, whose attributes no layer is called like.
        forward: the line that begins the method that computes, with {} for what it takes.
        sequential: the container that calls its layers in turn, as it is called and as it is derived from.
        several: the call that makes a container of layers with numbers, which the class calls itself.
        opening: the first lines of a constructor.
        passed: what each constructor hands on.
        closing: the last lines of the constructor of the whole.
        adds: whether a class derived from the sequential container adds its layers once it is made.
        helpers: code that the source needs if it calls what the name says.
    """

    written: Callable[[Part], Written]
    imports: Mapping[str, str]
    base: str
    owner: type
    forward: str
    sequential: tuple[str, str]
    several: Callable[[Sequence[Any]], SourceCall]
    opening: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    adds: bool = False
    helpers: Mapping[str, str] = field(default_factory=dict)


Name = tuple[str, ...]
Named = tuple[Name, Part]


def classes(parts: Sequence[Part], idiom: Idiom, layout: str, inputs: Inputs = ONE_IMAGE) -> str:
    """The source of a model: a class `Model`, the classes of its blocks before it, or of a lone layer one line."""
    names: list[Name] = [tuple(part.path.replace("/", ".").split(".")) for part in parts]
    if names == [("",)]:
        code = formatted(f"model = {idiom.written(parts[0]).item}", 0)
        code += [line.replace("self", "model") for line in idiom.closing]
        return _text(["\n".join(code)], idiom)
    scopes = _Scopes(parts, idiom)
    root = scopes.body([*zip(names, parts, strict=True)], variables_of(inputs))
    sections: list[str] = []
    for name, body, parameters in parametrised(root.blocks(), idiom.passed, class_name):
        sections.append(_class(name, body, parameters, idiom, ""))
    sections.append(_class("Model", root, [], idiom, f'"""Takes {layout}."""'))
    return _text(sections, idiom)


def _text(sections: Sequence[str], idiom: Idiom) -> str:
    code = "\n\n\n".join(sections)
    helpers = [helper for name, helper in idiom.helpers.items() if f"{name}(" in code]
    code = "\n\n\n".join([*helpers, code])
    between = "\n\n" if code.startswith("model") else "\n\n\n"
    return f"{imports(code, idiom.imports)}{between}{code}\n"


def _class(name: str, body: Body, parameters: Sequence[str], idiom: Idiom, about: str) -> str:
    base = idiom.sequential[1] if body.items is not None else idiom.base
    made = [*_constructor(body, idiom), *(idiom.closing if name == "Model" else [])]
    lines = [f"class {name}({base}):", *([f"    {about}", ""] if about else [])]
    if made:
        passed = ["*", *idiom.passed] if idiom.passed else []
        lines += formatted(f"def __init__({', '.join(['self', *parameters, *passed])}):", 4)
        lines += [line for statement in made for line in formatted(statement, 8)]
    if body.items is None:
        lines += [*([""] if made else []), f"    {idiom.forward.format(', '.join(body.variables.values()))}"]
        statements = lines_of(body.steps, body.steps[-1].value, fuses=True, variables=body.variables)
        lines += [line for statement in statements for line in formatted(statement, 8)]
    return "\n".join(lines)


def _constructor(body: Body, idiom: Idiom) -> list[str]:
    """The statements of a constructor."""
    if body.items is None:
        return [*idiom.opening, *(f"{target} = {value}" for target, value in body.attributes)]
    if idiom.adds:
        return [*idiom.opening, str(container("self.add", body.items))]
    return [str(container("super().__init__", body.items))]


class _Scopes:
    """The parts of a model, put into blocks as their names say."""

    def __init__(self, parts: Sequence[Part], idiom: Idiom) -> None:
        self.idiom, self.result = idiom, parts[-1].value
        self.takers: dict[str, list[str]] = {}
        for part in parts:
            for value in part.inputs:
                self.takers.setdefault(value, []).append(part.value)

    def body(self, parts: Sequence[Named], variables: Mapping[str, str] = IMAGE) -> Body:
        """What a class of these parts has, whose names are relative to it."""
        entries = [*self._entries(parts)]
        written: dict[Name, Written] = {}
        for name, inside in entries:  # Of a block that is called several times, the first call says what it is.
            written[name] = written.get(name) or self._written(name, inside)
        lasts, firsts = ([inside[at][1] for _, inside in entries] for at in (-1, 0))
        chain = all(part.inputs == (before.value,) for before, part in zip(lasts, firsts[1:], strict=False))
        numbered = all(len(name) == 1 and name[0].partition("_")[0].isdigit() for name in written)
        in_turn = chain and numbered and len(written) == len(entries) and len(variables) == 1
        items = [each.item for each in written.values()] if in_turn else [None]
        if None not in items:
            return Body([], [Statement("", (INPUT,), lasts[-1].value)], items)
        references, attributes = self._attributes(
            {name: each.made for name, each in written.items() if each.made and not each.inline}
        )
        (given, *_), steps = self._outside(parts), []
        for name, inside in entries:
            first, last = inside[0][1], inside[-1][1]
            taken = first.inputs if len(inside) == 1 else self._outside(inside)
            inputs = tuple(INPUT if value == given and len(variables) == 1 else value for value in taken)
            values = "{0}" if len(inputs) == 1 else "{all}"
            template = written[name].inline or f"{references[name]}({values})"
            steps.append(Statement(template, inputs, last.value, first.layer if len(inside) == 1 else None))
        return Body(attributes, steps, variables=variables)

    def _written(self, name: Name, inside: Sequence[Named]) -> Written:
        if len(inside) == 1:
            return self.idiom.written(inside[0][1])
        body = self.body([(path[len(name) :], part) for path, part in inside])
        made: Any = Block(name[-1], body) if body.items is None else container(self.idiom.sequential[0], body.items)
        return layer(made)

    def _entries(self, parts: Sequence[Named]) -> Iterator[tuple[Name, Sequence[Named]]]:
        """The parts with their names, and in place of those that are a block the block, once for each call of it."""
        start = 0
        while start < len(parts):
            path = parts[start][0]
            end, name = start + 1, path
            for length in range(1, len(path)):
                size = self._length(parts, path[:length])
                if size:
                    end, name = start + size, path[:length]
                    break
            yield name, parts[start:end]
            start = end

    def _length(self, parts: Sequence[Named], prefix: Name) -> int:
        """How many parts with names that begin alike are a block, in each call of it; 0 if they are none."""
        places = [place for place, (name, _) in enumerate(parts) if name[: len(prefix)] == prefix]
        names = Counter(parts[place][0] for place in places if not _is_function([parts[place]]))
        for calls in {max(names.values(), default=1): None, 1: None}:
            size = len(places) // calls
            starts = places[::size]
            if places == [place + n for place in starts for n in range(size)]:
                each_call = [parts[place : place + size] for place in starts]
                alike = len({self._wiring(call) for call in each_call}) == 1
                if alike and all(map(self._is_block, each_call)):
                    return size
        return 0

    def _wiring(self, inside: Sequence[Named]) -> str:
        """What the calls of a block have in common: its layers with weights, what else is computed, and of what."""
        numbers = {part.value: number for number, (_, part) in enumerate(inside)}
        return repr(
            [
                (self.idiom.written(part) if _is_function([(name, part)]) else name, [*map(numbers.get, part.inputs)])
                for name, part in inside
            ]
        )

    def _is_block(self, inside: Sequence[Named]) -> bool:
        """Whether parts take one value and give one, so that they can be called; a lone function can, too."""
        values = {part.value for _, part in inside}
        given = [value for value in values if value == self.result or {*self.takers.get(value, [])} - values]
        if given != [inside[-1][1].value] or len(self._outside(inside)) != 1:
            return False
        return any(self.idiom.written(part).made for _, part in inside) if len(inside) > 1 else _is_function(inside)

    def _outside(self, inside: Sequence[Named]) -> list[str]:
        """The values that parts take from outside."""
        values = {part.value for _, part in inside}
        return [*dict.fromkeys(value for _, part in inside for value in part.inputs if value not in values)]

    def _attributes(self, made: Mapping[Name, Any]) -> tuple[dict[Name, str], list[tuple[str, Any]]]:
        """How the forward refers to what is made, and what the constructor assigns, in order."""
        references: dict[Name, str] = {}
        attributes: dict[str, Any] = {}
        for path, value in made.items():
            outer = path[:-1]
            inside = [each for each in made if outer and each[: len(outer)] == outer]
            in_order = [(*outer, str(n)) for n in range(len(inside))]
            names = [*free_name(".".join(path), self.idiom.owner).split(".")]
            if len(outer) == 1 and {*inside} == {*in_order}:
                references[path] = f"self.{names[0]}[{path[-1]}]"
                attributes[f"self.{names[0]}"] = self.idiom.several([made[each] for each in in_order])
                continue
            if all(map(is_name, names)):
                for length in range(1, len(names)):
                    attributes.setdefault(".".join(["self", *names[:length]]), SourceCall(self.idiom.base, {}))
            else:
                names = ["_".join(names)] if is_name("_".join(names)) else [f"layer{'_'.join(names)}"]
            references[path] = ".".join(["self", *names])
            attributes[references[path]] = value
        return references, [*attributes.items()]


def _is_function(inside: Sequence[Named]) -> bool:
    """Whether parts have no weights, whose names would have to stay."""
    return not any(part.layer is None or part.layer.arrays for _, part in inside)


def layer_list(function: str) -> Callable[[Sequence[Any]], SourceCall]:
    """The call of a container that takes a list of layers."""
    return lambda items: SourceCall(function, {"": [*items]}, positional=1)
