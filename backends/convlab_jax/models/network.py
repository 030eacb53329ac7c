"""A linen model of layers that aren't one after another, which can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jax import Array

from convlab.models.adapters import Node
from convlab.models.layers.reading import INPUT

from .sequential import inference_of, switch_in


class Graph:
    """The layers of a `Network`, which linen would name itself if it saw them: in order, the last gives the result."""

    def __init__(self, nodes: Sequence[Node], inputs: Sequence[str] = (INPUT,)) -> None:
        self.nodes, self.inputs = tuple(nodes), tuple(inputs)


def key_of(name: str) -> str:
    """What the variables of a layer are called: its name, unless linen has the name for something else.

    >>> key_of("layer1.0.conv"), key_of("params"), key_of("init")
    ('layer1.0.conv', 'params_', 'init_')
    """
    return f"{name}_" if name == "params" or hasattr(Network, name) else name


class Network(nn.Module):
    """A graph of modules and functions: a call computes them in order, each of the results that it takes.

    With `train=True` batch normalisation takes the statistics of the batch and updates its running ones, where
    `mutable=["batch_stats"]` lets it, and dropout draws from `rngs={"dropout": key}`; `use_running_average` and
    `deterministic` overrule it. The variables are called as the nodes are: see `key_of`.

    Attributes:
        graph: the modules, without variables, and functions.
    """

    # The class has the name, too, so that no module gets it.
    graph: Graph = Graph(())

    @nn.compact
    def __call__(
        self,
        x: Array,
        *others: Array,
        train: bool = False,
        use_running_average: bool | None = None,
        deterministic: bool | None = None,
    ) -> Any:
        """The result for images (N, H, W, C), or several in a tuple or a dictionary, in inference or in training."""
        switches = inference_of(train, use_running_average, deterministic)
        values: dict[str, Any] = dict(zip(self.graph.inputs, (x, *others), strict=True))
        modules: dict[str, nn.Module] = {}
        for name, layer, inputs, value in self.graph.nodes:
            if isinstance(layer, nn.Module):
                layer = modules[name] = modules.get(name) or layer.clone(parent=self, name=key_of(name))
            values[value] = x = layer(*[values[each] for each in inputs], **switch_in(layer, switches))
        return x
