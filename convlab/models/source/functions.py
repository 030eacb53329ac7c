"""A model as one function, and a function for each kind of block that it has several of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from ..layers.joining import Concatenate
from ..layers.reading import INPUT, Part, parts_with_arrays
from .blocks import Block, Body, class_name, parametrised
from .code import Code, SourceCall, formatted, is_name
from .forward import Statement, lines_of

# What stands for a call in an expression until its arguments are known.
_MARK = "\x01"
Written = Callable[[Part], SourceCall | str]


def functions(
    parts: Sequence[Part], written: Written, variables: Mapping[str, str], passed: str = "", returns: bool = True
) -> tuple[list[str], list[str]]:
    """The functions of blocks, and the statements that compute the model from its inputs.

    Args:
        parts: the model's layers, of which a block's have names that begin alike, `layer1.0.conv1`.
        written: the call that makes a layer, with its `name`, or the expression of a function.
        variables: those of the inputs.
        passed: a parameter that the functions hand on to what is made in them, if it is used there.
        returns: whether the last statement may be `return` with the last expression.
    """
    # Blocks may stand in blocks: those of which most are alike make the shortest code.
    ways = [_functions(parts, written, variables, passed, returns, depth) for depth in (1, 2, 3)]
    return min(ways, key=lambda way: sum(text.count("\n") + 1 for texts in way for text in texts))


def _functions(
    parts: Sequence[Part], written: Written, variables: Mapping[str, str], passed: str, returns: bool, depth: int
) -> tuple[list[str], list[str]]:
    """See `functions`; a block is in so many others, if these have numbers."""
    entries = [*_entries(parts, depth)]
    bodies = {name: _body(inside, written, name) for name, inside in entries if name}
    alike = Counter(body.key() for body in bodies.values())
    blocks = {name: Block(_kind(name), body) for name, body in bodies.items() if alike[body.key()] > 1}
    sections = [_function(*each, passed) for each in parametrised(iter(blocks.values()), (), _name)]
    steps: list[tuple[str, Statement, dict[str, SourceCall]]] = []
    for name, inside in entries:
        if name in blocks:
            made = blocks[name].made
            assert made is not None
            further = {"name": name} | ({passed: Code(passed)} if _uses(blocks[name].body, passed) else {})
            called = SourceCall(made.function, {**made.arguments, **further}, positional=made.positional)
            template = f"{made.function}({{0}}{called.rest})"
            steps.append(("", Statement(template, _outside(inside), inside[-1].value), {}))
        else:
            body = _body(inside, written, "")
            steps += [(name, step, dict(body.attributes)) for step in body.steps]
    lines = lines_of([step for _, step, _ in steps], parts[-1].value, variables=variables, returns=returns)
    calls = {mark: call for _, _, several in steps for mark, call in several.items()}
    definitions, lines = _made_once(calls, lines)
    return sections, [*definitions, *_with_comments([name for name, _, _ in steps], lines)]


def called_again(parts: Sequence[Part]) -> list[str]:
    """The paths of layers with weights that a model calls several times."""
    calls = Counter(part.path for part in parts_with_arrays(parts))
    return [path for path, number in calls.items() if number > 1]


def _made_once(calls: Mapping[str, SourceCall], lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The statements that make the layers that are called several times, and the lines, filled.

    Args:
        calls: what makes each layer, by its mark in the lines.
        lines: what computes a model or a block.
    """
    marks = Counter(mark for line in lines for mark in re.findall(f"{_MARK}(.*?){_MARK}", line))
    again = {mark: calls[mark] for mark, number in marks.items() if number > 1}
    filled = [_filled(line, calls) for line in lines]
    taken = {*re.findall(r"\w+", " ".join(filled))} - {*re.findall(r"\w+", " ".join(again))}
    variables: dict[str, Code] = {}
    for mark in again:
        plain = re.sub(r"\W", "_", mark)
        stem = plain if is_name(plain) and plain not in taken else f"layer_{plain}"
        variables[mark] = Code(stem)
    definitions = [f"{name} = {calls[mark]}" for mark, name in variables.items()]
    return definitions, [_filled(line, {**calls, **variables}) for line in lines]


def _entries(parts: Sequence[Part], depth: int) -> Iterator[tuple[str, list[Part]]]:
    """The parts of each block with its name, and those in between with "", in order.

    A layer with arrays is in a block if all its calls are.
    """
    names = [_block_name(part.path, depth) for part in parts]
    for place, part in enumerate(parts):
        # What a dense block's layer joins first is given to it.
        if isinstance(part.layer, Concatenate) and names[place] != names[place - 1]:
            names[place] = ""
    runs = Counter(name for name, _ in groupby(names))
    calls: dict[str, set[str]] = {}
    for part in parts_with_arrays(parts):
        calls.setdefault(part.path, set()).add(part.value)
    takers: dict[str, list[str]] = {}
    for part in parts:
        for value in part.inputs:
            takers.setdefault(value, []).append(part.value)
    for name, several in groupby(zip(names, parts, strict=True), key=lambda each: each[0]):
        inside = [part for _, part in several]
        values = {part.value for part in inside}
        given = [value for value in values if value == parts[-1].value or {*takers.get(value, [])} - values]
        is_block = runs[name] == 1 and given == [inside[-1].value] and len(_outside(inside)) == 1 and len(inside) > 1
        is_block = is_block and not any(calls[part.path] - values for part in parts_with_arrays(inside))
        yield name if is_block else "", inside


def _outside(inside: Sequence[Part]) -> tuple[str, ...]:
    values = {part.value for part in inside}
    return tuple(dict.fromkeys(value for part in inside for value in part.inputs if value not in values))


def _block_name(path: str, depth: int = 1) -> str:
    """The block that a layer is in, the one with so many numbers behind the first name; "" for none.

    >>> [_block_name(path) for path in ("layer1.0.conv1", "block1_conv1_relu", "encoder.layers.0.norm", "head.fc1")]
    ['layer1.0', 'block1_conv1', 'encoder.layers.0', '']
    >>> _block_name("features.1.0.block.0", depth=2)
    'features.1.0'
    """
    stem = path.removesuffix("_before")
    if "." not in stem:
        found = re.match(r"[^_]*_[^_]*\d(?=_)", stem)
        return found[0] if found else ""
    names = stem.split(".")
    ends = [end for end in range(2, len(names)) if names[end - 1][-1:].isdigit()][:depth]
    return ".".join(names[: ends[-1]]) if ends else ""


def _kind(name: str) -> str:
    return re.split(r"[._]", name)[-1].rstrip("0123456789")


def _name(block: Block, others: Mapping[str, Body]) -> str:
    """A name for the function of a block: that of a class in small letters."""
    classes = {"".join(word.capitalize() for word in name.split("_")): body for name, body in others.items()}
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name(block, classes)).lower()


def _body(inside: Sequence[Part], written: Written, block: str) -> Body:
    """What a function of these parts computes; `block` is the name that its parameter `name` stands for."""
    attributes: list[tuple[str, SourceCall]] = []
    steps: list[Statement] = []
    given = _outside(inside)[0]
    for part in inside:
        template = made = written(part)
        if isinstance(made, SourceCall):
            mark = part.path[len(block) + 1 :] if block else part.path
            template = f"{_MARK}{mark}{_MARK}({'[{all}]' if len(part.inputs) > 1 else '{0}'})"
            if block and "name" in made.arguments:
                made = replace(
                    made, arguments={**made.arguments, "name": Code(f'f"{{name}}{part.path[len(block) :]}"')}
                )
            if mark not in dict(attributes):
                attributes.append((mark, made))
        inputs = tuple(INPUT if block and value == given else value for value in part.inputs)
        steps.append(Statement(str(template), inputs, part.value, part.layer))
    return Body(attributes, steps)


def _filled(line: str, calls: Mapping[str, SourceCall | Code]) -> str:
    """A line with the calls in the place of their marks."""
    return re.sub(f"{_MARK}(.*?){_MARK}", lambda match: str(calls[match[1]]), line)


def _uses(body: Body, name: str) -> bool:
    return bool(name) and any(re.search(rf"\b{name}\b", str(call)) for _, call in body.attributes)


def _function(name: str, body: Body, parameters: Sequence[str], passed: str) -> str:
    further = [passed] if _uses(body, passed) else []
    head = formatted(f"def {name}({', '.join(['x', *parameters, 'name', *further])}):", 0)
    calls = dict(body.attributes)
    definitions, lines = _made_once(calls, lines_of(body.steps, body.steps[-1].value))
    return "\n".join([*head, *(each for line in [*definitions, *lines] for each in formatted(line, 4))])


def _with_comments(names: Sequence[str], lines: Sequence[str]) -> list[str]:
    """The lines that compute layers of these blocks, with the name of each block above it."""
    # A first line may give the image another name, and a last one may only return.
    first = int(len(lines) > len(names) and not lines[0].startswith("x = "))
    result = [*lines[:first]]
    for before, block, line in zip(["", *names], [*names, ""], lines[first:], strict=False):
        if block != before and result:
            result.append("")
        if block != before and block:
            result.append(f"# {block}")
        result.append(line)
    return result
