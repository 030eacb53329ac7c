"""What a gluon block computes, recorded while it runs: for a `forward` that takes arrays and no symbols."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convlab.errors import UnsupportedError
from convlab.models.layers.outputs import results_of

from .. import private
from ..ops import mx
from .options import Block, value_of

_SIZES = (32, 64, 28, 224, 16, 8)
# A number of images that no code means by itself, and how the shape of such images begins.
_IMAGES = 7
_FIRST = f"({_IMAGES},"
# What MXNet's operators of `mx.np` and `mx.npx` are called before their own names.
_PREFIXES = ("_npx_", "_npi_", "_np_", "_contrib_", "_")

Recording = tuple[list[dict[str, Any]], list[int], tuple[str, ...]]


def recorded(
    block: Block, examples: Sequence[Any] | None, arguments: Sequence[str], numpy: bool, ctx: Any
) -> Recording:
    """The nodes of the symbol that a block's code records on images, which of them give its results, and their names.

    Args:
        block: any block, with values for its parameters.
        examples: images that it takes, (N, C, H, W), for each argument; None for some that it tries.
        arguments: what the nodes of the images are called.
        numpy: whether it takes arrays of `mx.np`.
        ctx: its device.

    Raises:
        UnsupportedError: it doesn't run on images that were tried, or does something else for other sizes.
    """
    recordings: list[Recording] = []
    for shapes in _shapes(block, examples, len(arguments)):
        images = [(mx.np if numpy else mx.nd).ones(shape, ctx=ctx) for shape in shapes]
        for x in images:
            x.attach_grad()
        try:
            with private.not_compiled(block), mx.autograd.record(train_mode=False):
                names, results = results_of(block(*images))
            symbols = [*map(mx.autograd.get_symbol, results)]
            content = json.loads((mx.sym.Group(symbols) if len(symbols) > 1 else symbols[0]).tojson())
        except UnsupportedError:
            raise
        except Exception:  # The block's own code may fail in any way on images of a size.
            continue
        heads = [head[0] for head in content["heads"]]
        called = {mx.autograd.get_symbol(x).name: name for x, name in zip(images, arguments, strict=True)}
        recordings.append((_named(content["nodes"], block, called), heads, names))
        if any(head[1] for head in content["heads"]) or recordings[0] != recordings[-1]:
            why = "it gives what isn't an operator's first result, or does something else for images of other sizes"
            raise UnsupportedError(why)
        if len(recordings) == 2:
            break
    if not recordings:
        raise UnsupportedError("it can't be traced on symbols, nor run on images")
    return recordings[0]


def _shapes(block: Block, examples: Sequence[Any] | None, count: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    if examples is not None:
        yield tuple((_IMAGES, *np.shape(x)[-3 if count == 1 else 1 :]) for x in examples)
        return
    values = map(value_of, block.collect_params().values())
    channels = dict.fromkeys(value.shape[1] for value in values if value.ndim == 4)
    # Code may make one image as large as another one.
    for each, size, apart in itertools.product(channels, _SIZES, (4, 0) if count > 1 else (0,)):
        yield tuple((_IMAGES, each, size + place * apart, size + place * apart) for place in range(count))


def _named(nodes: Sequence[Mapping[str, Any]], block: Block, images: Mapping[str, str]) -> list[dict[str, Any]]:
    """The nodes, with names of their own, and those of images and parameters for what the recording calls `var3`."""
    learned = [each for each in block.collect_params().values() if each.grad_req != "null"]
    names = {mx.autograd.get_symbol(value_of(each)).name: each.name for each in learned}
    names |= images
    result = [{**node, "name": names.get(node["name"], node["name"])} for node in nodes]
    norms = list(_norms(block))
    for node in result:
        if node["op"] == "BatchNorm":
            _name_statistics([result[each[0]] for each in node["inputs"][1:]], norms)
        if node["op"] != "null":
            node["name"] = _own_name(node["op"])
        if node["name"] == "reshape":
            node["attrs"] = {name: _any_batch(value) for name, value in node["attrs"].items()}
    return result


def _norms(block: Block) -> Iterator[list[str]]:
    """The names of the parameters of each batch norm in a block, in the order that its operator takes them."""
    blocks: list[Block] = []
    block.apply(blocks.append)
    for own in map(private.parameters, blocks):
        if "running_mean" in own and "gamma" in own:
            yield [own[name].name for name in ("gamma", "beta", "running_mean", "running_var")]


def _name_statistics(arrays: Sequence[dict[str, Any]], norms: Sequence[list[str]]) -> None:
    """Name the arrays that a batch norm takes: the recording has no names for those that aren't learned."""
    taken = {array["name"] for array in arrays}
    names = next((each for each in norms if taken.intersection(each[:2])), [])
    for array, name in zip(arrays, names, strict=False):
        array["name"] = name


def _any_batch(value: str) -> str:
    """An option, for any number of images where it is a shape that begins with the number that was given."""
    return f"(0,{value.removeprefix(_FIRST)}" if value.startswith(_FIRST) else value


def _own_name(operator: str) -> str:
    prefix = next((each for each in _PREFIXES if operator.startswith(each)), "")
    return operator.removeprefix(prefix).lower()
