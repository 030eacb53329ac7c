"""A PyTorch model of layers that aren't one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from convlab.models.adapters import Node, free_name
from convlab.models.layers.reading import INPUT


class Network(nn.Module):
    """A graph of modules and functions: `forward` computes them in order, each of the results that it takes.

    Modules are attributes by their names, `network.layer1.conv`; one that is put in the place of another is used.

    Args:
        nodes: in order; the last gives the result.
        inputs: the values of its arguments, in order.
    """

    # The class has the names, too, so that no module gets them.
    _steps: Sequence[Node] = ()
    inputs: Sequence[str] = (INPUT,)

    def __init__(self, nodes: Sequence[Node], inputs: Sequence[str] = (INPUT,)) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        steps: list[Node] = []
        for node in nodes:
            if isinstance(node.native, nn.Module):
                name = free_name(node.name, Network)
                _put(self, name, node.native)
                node = node._replace(name=name, native=None)
            steps.append(node)
        self._steps = steps

    def __iter__(self) -> Iterator[Node]:
        """The nodes, with the modules that are attributes now."""
        for node in self._steps:
            yield node if node.native is not None else node._replace(native=self.get_submodule(node.name))

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        """The result for images (N, C, H, W), or several in a tuple or a dictionary."""
        values = dict(zip(self.inputs, (x, *others), strict=True))
        for _, native, inputs, value in self:
            values[value] = x = native(*[values[name] for name in inputs])
        return x


def _put(outer: nn.Module, name: str, module: nn.Module) -> None:
    """Make a module an attribute of another; of a name with several parts the first are modules in between."""
    *between, last = name.split(".")
    for part in between:
        if not isinstance(getattr(outer, part, None), nn.Module):
            outer.add_module(part, nn.Module())
        outer = outer.get_submodule(part)
    outer.add_module(last, module)


def sequential(nodes: Sequence[Node]) -> nn.Sequential | None:
    """Modules one after another in nested `nn.Sequential`, as their names say; None where the names don't allow it."""
    root = nn.Sequential()
    path: list[tuple[str, nn.Module]] = []
    for name, native, _, _ in nodes:
        if not isinstance(native, nn.Module):
            return None
        *between, last = free_name(name, nn.Sequential).split(".")
        common = 0
        while common < min(len(path), len(between)) and path[common][0] == between[common]:
            common += 1
        del path[common:]
        outer = path[-1][1] if path else root
        for part in between[common:]:
            if part in dict(outer.named_children()):
                return None
            inner = nn.Sequential()
            outer.add_module(part, inner)
            path.append((part, inner))
            outer = inner
        if last in dict(outer.named_children()):
            return None
        outer.add_module(last, native)
    return root
