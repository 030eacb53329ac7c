"""Code that changes a tensor in its place, as code that takes the changed one from there on."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.fx
from torch import nn

_OPERATORS = tuple(getattr(operator, name) for name in ("iadd", "isub", "imul", "itruediv", "ipow"))


def take_changed(graph: torch.fx.Graph, model: nn.Module) -> None:
    """Let what comes behind a change in place take its result, which is the tensor that was changed.

    A part of a tensor that is changed, `x[:, 0].relu_()`, isn't seen here.

    Args:
        graph: a traced graph, which is changed.
        model: what was traced.
    """
    for node in graph.nodes:
        changed: Any = node.args[0] if node.args and _is_in_place(node, model) else None
        if isinstance(changed, torch.fx.Node):
            changed.replace_all_uses_with(node, lambda user, node=node: node < user)  # type: ignore[misc]


def _is_in_place(node: torch.fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    method = node.op == "call_method" or getattr(torch, name, None) is node.target
    in_name = method and name.endswith("_") and not name.endswith("__")
    return in_name or node.target in _OPERATORS or node.kwargs.get("inplace") is True
