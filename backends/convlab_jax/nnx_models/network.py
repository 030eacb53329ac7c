"""An nnx model of layers that aren't one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

from flax import nnx
from jax import Array

from convlab.models.adapters import Node, free_name
from convlab.models.layers.reading import INPUT


class Group(nnx.Module):
    """Modules whose names begin alike."""


class Network(nnx.Module):
    """A graph of modules and functions: a call computes them in order, each of the results that it takes.

    Modules are attributes by their names, `network.layer1.conv`; one that is put in the place of another is used.

    Args:
        nodes: in order; the last gives the result.
        inputs: the values of its arguments, in order.
    """

    # The class has the names, too, so that no module gets them.
    steps: Any = ()
    inputs: Any = (INPUT,)

    def __init__(self, nodes: Sequence[Node], inputs: Sequence[str] = (INPUT,)) -> None:
        self.inputs = nnx.static(tuple(inputs))
        steps: list[Node] = []
        for node in nodes:
            if isinstance(node.native, nnx.Module):
                _put(self, free_name(node.name, Network).split("."), node.native)
                node = node._replace(native=None)
            steps.append(node)
        self.steps = nnx.static(tuple(steps))

    def nodes(self) -> Iterator[Node]:
        """The nodes, with the modules that stand there now."""
        for node in self.steps:
            if node.native is None:
                node = node._replace(native=reduce(getattr, free_name(node.name, Network).split("."), self))
            yield node

    def __call__(self, x: Array, *others: Array) -> Any:
        """The result for images (N, H, W, C), or several in a tuple or a dictionary."""
        values = dict(zip(self.inputs, (x, *others), strict=True))
        for _, function, inputs, value in self.nodes():
            values[value] = x = function(*[values[name] for name in inputs])
        return x


def _put(outer: Any, path: Sequence[str], module: nnx.Module) -> None:
    *between, last = path
    for part in between:
        if not isinstance(getattr(outer, part, None), nnx.Module):
            setattr(outer, part, Group())
        outer = getattr(outer, part)
    setattr(outer, last, module)
