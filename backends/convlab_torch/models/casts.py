"""Casts to the dtype in which a model computes anyway, and to a device or a memory format: they do nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch import nn

_METHODS = {"float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16}
_TO = ("to", "type_as", "cpu", "cuda")


def drop_casts(graph: torch.fx.Graph, model: nn.Module) -> None:
    """Let what takes a cast to the dtype of all of a model's numbers take the tensor itself."""
    dtypes = {each.dtype for each in (*model.parameters(), *model.buffers()) if each.is_floating_point()}
    dtype = dtypes.pop() if dtypes else torch.float32
    if dtypes:
        return
    for node in [*graph.nodes]:
        if node.op == "call_method" and _keeps(node, dtype):
            tensor: Any = node.args[0]
            given = (*node.args[1:], *node.kwargs.values())
            if "memory_format" in node.kwargs or "copy" in node.kwargs:  # It may be a copy, or the tensor itself.
                node.target, node.args, node.kwargs = "contiguous", (tensor,), {}
                continue
            node.replace_all_uses_with(tensor)
            graph.erase_node(node)
            for each in given:
                if isinstance(each, torch.fx.Node) and _is_attribute(each) and not each.users:
                    graph.erase_node(each)


def _keeps(node: torch.fx.Node, dtype: torch.dtype) -> bool:
    """Whether a method casts to no other dtype: what another tensor has is the model's."""
    given: tuple[Any, ...] = (*node.args[1:], *node.kwargs.values())
    if node.target == "type":  # Without a dtype it gives a name.
        return given == (dtype,)
    keeps = node.target in _TO and all(each == dtype for each in given if isinstance(each, torch.dtype))
    return keeps or _METHODS.get(str(node.target)) == dtype


def _is_attribute(node: torch.fx.Node) -> bool:
    return node.target is getattr and node.args[1] in ("dtype", "device")
