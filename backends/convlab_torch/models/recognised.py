"""What a traced graph spells out in many calls, put into the few that say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.fx
from torch import nn

from .channel_convolutions import as_rows, convolves_rows
from .flat_pixels import has_flat_pixels, merge_back
from .merged_parts import has_parts, merge_parts
from .pixel_attention import attend_pixels
from .spelled_out import spell_out

Shapes = Callable[[], dict[torch.fx.Node, Any]]


def recognise(
    model: nn.Module, graph: torch.fx.Graph, rank: int, shapes: Callable[[], dict[torch.fx.Node, Any]]
) -> None:
    """Rewrite a graph so that each of its calls is one that convlab knows, where that is possible.

    Args:
        model: the model.
        graph: its traced graph, which is changed.
        rank: how many axes its images have beside those of images and channels.
        shapes: gives the shapes of the graph's tensors, as it is now, for images of one size.
    """
    spell_out(graph)
    if rank != 2:
        return
    attend_pixels(model, graph, shapes)
    if has_flat_pixels(graph):
        merge_back(model, graph, shapes())
    if has_parts(graph):
        merge_parts(model, graph, shapes())
    if any(map(convolves_rows, model.modules())):
        as_rows(model, graph, shapes())
