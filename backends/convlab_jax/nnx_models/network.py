"""An nnx model of layers that aren't one after another."""

from __future__ import annotations

from collections.abc import Sequence
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
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        steps: list[tuple[Any, tuple[str, ...], str]] = []
        for name, native, inputs, value in nodes:
            path = tuple(free_name(name, Network).split("."))
            if isinstance(native, nnx.Module):
                _put(self, path, native)
            steps.append((path if isinstance(native, nnx.Module) else native, inputs, value))
        self.steps = nnx.static(tuple(steps))

    def __call__(self, x: Array) -> Array:
        """The result for images (N, H, W, C)."""
        values = {INPUT: x}
        for called, inputs, value in self.steps:
            function = _at(self, called) if isinstance(called, tuple) else called
            values[value] = x = function(*[values[name] for name in inputs])
        return x


def _put(outer: Any, path: Sequence[str], module: nnx.Module) -> None:
    *between, last = path
    for part in between:
        if not isinstance(getattr(outer, part, None), nnx.Module):
            setattr(outer, part, Group())
        outer = getattr(outer, part)
    setattr(outer, last, module)


def _at(outer: Any, path: Sequence[str]) -> Any:
    for part in path:
        outer = getattr(outer, part)
    return outer
