"""MXNet's exported models, `net-symbol.json` and `net-0000.params`, read without MXNet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....errors import ConvlabError, ModelFileError
from ...layers.outputs import Outputs
from ...layers.reading import Model
from ..checks import bytes_of, check_flow, check_options
from ..fields import excerpt
from ..flow import Flow
from ..neutral import MOST_INPUTS, MOST_LAYERS
from .params import read_params_file
from .symbol import SymbolReading

# In bytes; the largest models have less than a tenth of it.
_LONGEST_SYMBOL = 2**24


def read_symbol(path: Path, params: Path | None = None) -> Model:
    """The model in an exported symbol and the parameters beside it.

    Args:
        path: `net-symbol.json`.
        params: the file of parameters; by default the only `net-*.params` in the same folder.

    Raises:
        ModelFileError: one of them can't be read, they don't fit, or a node is no layer that convlab knows.
    """
    name = str(path)
    nodes, heads = _nodes(name, path)
    params = params or _params_beside(path)
    parameters = read_params_file(params)
    reading = SymbolReading(parameters)
    try:
        parts = reading.of(nodes, heads)
    except ConvlabError as error:
        why = str(error).partition(" Hint:")[0].rstrip(".")
        hint = f"the parameters are those in {params}"
        raise _refused(name, f"what can't be read ({why})", "layers that convlab knows", hint) from error
    if not parts:
        raise _refused(name, "no layer", "a model")
    size = sum(bytes_of(part.layer) for part in parts)
    if size > 4 * params.stat().st_size:
        raise _refused(name, f"layers of {size} bytes", "weights of few layers to be the same")
    flow = Flow(reading.inputs)
    for part in parts:
        assert part.layer is not None
        if isinstance(part.layer, Outputs):
            continue
        number = int(part.value.partition(".")[0])
        where = f"{name}: {_place(nodes[number])}"
        check_options(where, part.layer)
        check_flow(where, part, flow)
    return Model("mxnet", parts, True, None, inputs=dict.fromkeys(reading.inputs))


def _nodes(name: str, path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The nodes of a symbol, each behind those whose results it takes, and the numbers of those that give its own."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        if path.stat().st_size > _LONGEST_SYMBOL:
            raise ValueError(f"more than {_LONGEST_SYMBOL} bytes")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelFileError(f"{name}: no such file, expected a symbol of MXNet's.", hint="check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        hint = "it may be another kind of file, or have been cut off"
        why = f"a file that can't be read ({type(error).__name__}: {excerpt(str(error))})"
        raise _refused(name, why, "the JSON of a symbol", hint) from error
    nodes, heads = (content.get(key) if isinstance(content, dict) else None for key in ("nodes", "heads"))
    if not isinstance(nodes, list) or not isinstance(heads, list):
        raise _refused(name, "no nodes and heads", "the JSON of a symbol", "it may be another kind of file")
    if len(nodes) > MOST_LAYERS:
        raise _refused(name, f"{len(nodes)} nodes", f"at most {MOST_LAYERS}")
    for number, node in enumerate(nodes):
        _check_node(f"{name}: nodes[{number}]", node, number)
    if not 1 <= len(heads) <= MOST_INPUTS or not all(_is_reference(head, len(nodes)) for head in heads):
        raise _refused(name, f"the heads {excerpt(heads)}", "some, each the first result of a node")
    return nodes, [head[0] for head in heads]


def _check_node(where: str, node: object, number: int) -> None:
    known = isinstance(node, dict) and all(isinstance(node.get(key), str) for key in ("op", "name"))
    if not isinstance(node, dict) or not known:
        raise _refused(where, excerpt(node), "an object with 'op' and 'name'")
    where = f"{where}: {_place(node)}"
    options = node.get("attrs") or node.get("param") or {}
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        raise _refused(where, f"the attributes {excerpt(options)}", "strings by name")
    inputs = node.get("inputs")
    if not isinstance(inputs, list) or not all(_is_reference(each, number) for each in inputs):
        expected = "[number, 0, ...] of nodes before it, whose first result it takes"
        raise _refused(where, f"the inputs {excerpt(inputs)}", expected, "a node can't take what comes behind it")
    if (node["op"] == "null" and inputs) or "subgraphs" in node:
        raise _refused(where, "inputs of a variable, or a graph inside", "plain operators")


def _is_reference(value: object, end: int) -> bool:
    """Whether a value of JSON names the first result of a node before `end`."""
    if not isinstance(value, list) or not 2 <= len(value) <= 3 or any(type(each) is not int for each in value):
        return False
    return bool(0 <= value[0] < end and value[1] == 0)


def _place(node: Mapping[str, Any]) -> str:
    return f"node {excerpt(node['name'])} ({excerpt(node['op'])[1:-1]})"


def _params_beside(path: Path) -> Path:
    stem = path.name[: -len("-symbol.json")]
    files = sorted(each for each in path.parent.iterdir() if _belongs(each.name, stem))
    if len(files) != 1:
        names = ", ".join(each.name for each in files)
        got = f"{len(files)} files of parameters beside it{': ' if files else ''}{names}"
        raise _refused(str(path), got, f"one, {stem}-0000.params", "params= says which")
    return files[0]


def _belongs(name: str, stem: str) -> bool:
    middle = name.removeprefix(stem).removesuffix(".params")
    return name == f"{stem}{middle}.params" and (not middle or (middle[0] == "-" and middle[1:].isdecimal()))


def _refused(where: str, got: str, expected: str, hint: str = "") -> ModelFileError:
    hint = hint or "port the model in MXNet, or export it again"
    return ModelFileError(f"{where}: got {got}, expected {expected}.", hint=f"{hint}; the files are left as they are.")
