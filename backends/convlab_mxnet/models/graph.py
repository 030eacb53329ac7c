"""The graph of a gluon block whose code is its own, or of a symbol: what it calls, by MXNet's operators."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from convlab.errors import UnsupportedError
from convlab.models.files.mxnet.symbol import SymbolReading
from convlab.models.layers.arguments import arguments_needed, examples_of
from convlab.models.layers.layer import Layer
from convlab.models.layers.outputs import Outputs, results_of
from convlab.models.layers.own_arrays import OF_ONE_ARRAY
from convlab.models.layers.reading import Part

from .. import private
from ..blocks import semantics
from ..ops import mx, ops
from .build import build
from .options import value_of
from .recording import recorded

Block = Any
# The parts of a model, and the values that it takes.
Graph = tuple[list[Part], tuple[str, ...]]


def graph_of(block: Block, parts: Callable[[Block, str], Sequence[Part]], inputs: Any = None) -> Graph:
    """The parts of a block with their inputs, and those of the block.

    Args:
        block: any block, also a SymbolBlock.
        parts: the parts that a block at a path is.
        inputs: images that it takes, for a block whose code takes no symbols; None for some that it tries. Of several
            arguments there are some for each.

    Raises:
        UnsupportedError: it can't be traced, or takes or gives more than one array; or an operator is unknown.
    """
    hybrid = isinstance(block, mx.gluon.HybridBlock) and not isinstance(block, mx.gluon.SymbolBlock)
    forward = block.hybrid_forward if hybrid else block.forward
    arguments = _symbols_of(block) or arguments_needed(forward, "F", *private.parameters(block))
    arguments = arguments if len(arguments) > 1 else ["data"]
    own = [*_own_blocks(block, parts)]
    reading = _Reading(block, parts, own)
    with semantics([block]) as (numpy, ctx):
        variables = [mx.sym.var(name) for name in arguments]
        try:
            with _as_operators(own):
                names, symbols = results_of(block(*(each.as_np_ndarray() if numpy else each for each in variables)))
            content = json.loads((mx.sym.Group(symbols) if len(symbols) > 1 else symbols[0]).tojson())
        except UnsupportedError:
            raise
        except Exception:  # The block's own code may fail in any way when it is given a symbol.
            nodes, heads, names = recorded(block, examples_of(inputs, arguments), arguments, numpy, ctx)
            return reading.of(nodes, heads, names, arguments), reading.inputs
        if any(head[1] for head in content["heads"]):
            raise UnsupportedError("it gives a result other than the first of an operator")
        heads = [head[0] for head in content["heads"]]
        return reading.of(content["nodes"], heads, names, arguments), reading.inputs


def _symbols_of(block: Block) -> list[str]:
    """The names of the symbols that a SymbolBlock takes; none for another block."""
    return private.symbols_taken(block) if isinstance(block, mx.gluon.SymbolBlock) else []


# What the operator that stands for a block is called, before the block's number.
_BLOCK = "convlab_block"


def _own_blocks(block: Block, parts: Callable[[Block, str], Sequence[Part]]) -> Iterator[Part]:
    """The blocks of convlab's inside a block, which compute more than one operator and are known as a whole."""
    for path, inner in _walk(block, ""):
        if path and type(inner).__module__.partition(".")[0] == __name__.partition(".")[0]:
            known = [part for part in parts(inner, path) if part.layer and not isinstance(part.layer, Outputs)]
            yield from known[:1]


@contextlib.contextmanager
def _as_operators(own: Sequence[Part]) -> Iterator[None]:
    """A context in which each of these blocks gives one operator of what it takes, whose name ends with its number."""

    def computed(number: int, F: Any, *values: Any, **parameters: Any) -> Any:
        numpy = mx.util.is_np_array()
        result = F.add_n(*(each.as_nd_ndarray() if numpy else each for each in values), name=f"{_BLOCK}{number}")
        return result.as_np_ndarray() if numpy else result

    try:
        for number, part in enumerate(own):
            vars(part.native)["hybrid_forward"] = functools.partial(computed, number)
        yield
    finally:
        for part in own:
            del vars(part.native)["hybrid_forward"]


class _Reading(SymbolReading):
    """The nodes of a block's symbol, whose layers are the blocks that own the parameters.

    Args:
        block: the whole.
        parts: the parts that a block at a path is.
        own: the blocks that operators stand for, by the numbers in the operators' names.
    """

    def __init__(self, block: Block, parts: Callable[[Block, str], Sequence[Part]], own: Sequence[Part] = ()) -> None:
        super().__init__({parameter.name: parameter for parameter in block.collect_params().values()})
        self.parts, self.own = parts, own
        self.blocks = dict(_walk(block, ""))
        owned = [
            (path, inner, name, each)
            for path, inner in self.blocks.items()
            for name, each in private.parameters(inner).items()
        ]
        self.owners = {id(parameter): (path, inner, name) for path, inner, name, parameter in owned}

    def array(self, name: str) -> np.ndarray:
        """See `SymbolReading`."""
        return ops.to_numpy(value_of(self.parameters[name]))

    def native_of(self, layer: Layer) -> Block:
        """See `SymbolReading`."""
        return build(layer, "builtin")[0]

    def block(self, node: str) -> Part | None:
        """See `SymbolReading`."""
        _, found, number = node.rpartition(_BLOCK)
        return self.own[int(number)] if found else None

    def native(self, path: str, layer: Layer, parameters: Sequence[str]) -> tuple[str, Block]:
        """The block that owns an operator's parameters, without its activation, or a block that computes the same."""
        first = id(self.parameters[parameters[0]]) if parameters else None
        if first in self.owners:
            path, owner, name = self.owners[first]
            part = next(iter(self.parts(owner, path)), None)
            if part is not None and type(part.layer) is type(layer):
                return path, part.native
            if isinstance(layer, OF_ONE_ARRAY):
                path = f"{path}.{name}".removeprefix(".")
        return path, self.native_of(layer)

    def path(self, node: str) -> str:
        """The path of the innermost block whose operator has this name, and the operator's own name."""
        prefixes = {block.prefix: path for path, block in self.blocks.items() if block.prefix}
        prefix = max((each for each in prefixes if node.startswith(each)), key=len, default="")
        own = node[len(prefix) :].strip("_")
        path = prefixes.get(prefix, "")
        return path if own == "fwd" else ".".join(filter(None, [path, own]))


def _walk(block: Block, path: str) -> Iterator[tuple[str, Block]]:
    yield path, block
    for name, child in private.children(block).items():
        yield from _walk(child, f"{path}.{name}" if path else name)
