"""Calls in a traced graph that make an image's pixels the tokens of a sequence, (N, C, L) or (N, L, C)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from convlab.errors import UnsupportedError

from .attention import ClassToken, PositionEmbedding, first_pixel
from .functions import average
from .patterns import axes_of_size, permutation
from .rewriting import JOINS, VIEWS, arguments_of, is_size_of


def merges_pixels(node: torch.fx.Node, channels: int) -> bool:
    """Whether a node makes images of so many channels, 0 for an unknown number, (N, C, H * W)."""
    if node.target in (torch.flatten, "flatten"):
        return (*node.args[1:], *node.kwargs.values()) in ((2,), (2, -1), (2, 3))
    axes: Any = node.args[1] if len(node.args) == 2 else node.args[1:]
    if node.target not in VIEWS or not isinstance(axes, (tuple, list)) or len(axes) != 3:
        return False
    image: Any = node.args[0]
    return axes[1] == channels > 0 or axes_of_size(axes[1], image) == [1]


def boxes_at_pixel(node: torch.fx.Node, channels: int, known: int) -> int:
    """How many tokens a node makes of each pixel of images (N, H, W, C) of so many channels; 0 for another node.

    `known` is how many numbers a token has where the call doesn't tell; 0 where that isn't known.
    """
    if node.target in (torch.flatten, "flatten"):
        return int((*node.args[1:], *node.kwargs.values()) == (1, 2))
    axes: Any = node.args[1] if len(node.args) == 2 else node.args[1:]
    if node.target not in VIEWS or not isinstance(axes, (tuple, list)) or len(axes) != 3:
        return 0
    numbers = known if axes[2] == -1 or isinstance(axes[2], torch.fx.Node) else axes[2]
    fits = is_size_of(axes[0], 0) and isinstance(numbers, int) and 0 < numbers <= channels and channels % numbers == 0
    return channels // numbers if fits else 0


def is_flat(node: torch.fx.Node) -> bool:
    """Whether a node makes one row of numbers of each image."""
    if node.target in (torch.flatten, "flatten"):
        given = arguments_of(node, "input", "start_dim", "end_dim")
        return given.get("start_dim") == 1 and given.get("end_dim", -1) in (-1, 3)
    axes: Any = node.args[1] if len(node.args) == 2 else node.args[1:]
    two = node.target in VIEWS and isinstance(axes, (tuple, list)) and len(axes) == 2
    return two and is_size_of(axes[0], 0) and axes[1] == -1


def joined_rows(node: torch.fx.Node, rows: AbstractSet[Any]) -> list[torch.fx.Node]:
    """The nodes whose rows a node puts behind each other, if these are among some; none for another node."""
    given = arguments_of(node, "tensors", "dim")
    values = given.get("tensors")
    joins = node.target in JOINS and isinstance(values, (tuple, list)) and rows >= {*values}
    return [*values] if joins and given.get("dim", 0) in (1, -1) else []  # type: ignore[misc]


def joined_tokens(node: torch.fx.Node, tokens: AbstractSet[Any], last: AbstractSet[Any]) -> list[torch.fx.Node]:
    """The nodes whose tokens, (N, L, C) or (N, C, L), a node puts behind each other; none for another node."""
    given = arguments_of(node, "tensors", "dim")
    values = given.get("tensors")
    if node.target not in JOINS or not isinstance(values, (tuple, list)) or not tokens >= {*values}:
        return []
    axes = ((1, -2), (2, -1))[0 if values[0] in last else 1]
    alike = last >= {*values} or not last & {*values}
    return [*values] if alike and given.get("dim", 0) in axes else []


def swaps_tokens(node: torch.fx.Node) -> bool:
    """Whether a node swaps the axes of the channels and of the tokens."""
    if node.target in (torch.transpose, "transpose"):
        return node.args[1:] in ((1, 2), (2, 1), (-1, -2), (-2, -1))
    return permutation(node) == (0, 2, 1)


def makes_column(node: torch.fx.Node) -> bool:
    """Whether a node makes an image of one column, (N, C, L, 1), of tokens (N, C, L)."""
    return node.target in (torch.unsqueeze, "unsqueeze") and (*node.args[1:], *node.kwargs.values()) in ((-1,), (3,))


def row_of_tokens(node: torch.fx.Node, channels_last: bool) -> Callable[..., Any] | None:
    """The function of images that takes the first of tokens, or their mean; None for another call.

    Tokens are (N, L, C) or, with the channels not last, (N, C, L).
    """
    every = slice(None)
    first = ((every, 0), (every, 0, every)) if channels_last else ((every, every, 0),)
    if node.target is operator.getitem and node.args[1] in first:
        return first_pixel
    along: Any = (*node.args[1:], *node.kwargs.values())
    axes = along[0] if len(along) == 1 and isinstance(along[0], (tuple, list)) else along
    mean = node.target in (torch.mean, "mean") and tuple(axes) in (((1,), (-2,)) if channels_last else ((2,), (-1,)))
    return partial(average, keepdim=False) if mean else None


def expands_batch(node: torch.fx.Node) -> bool:
    """Whether a node repeats an array of the model's own for each image."""
    return node.target in ("expand", "repeat") and set(node.args[2:]) <= {-1 if node.target == "expand" else 1}


def with_token(node: torch.fx.Node, arrays: Mapping[torch.fx.Node, Tensor]) -> tuple[nn.Module, torch.fx.Node] | None:
    """The module that puts a class token before tokens (N, L, C), and their node; None for another call."""
    values: Any = node.args[0]
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if node.target not in JOINS or len(values) != 2 or values[0] not in arrays or values[1] in arrays:
        return None
    token = arrays[values[0]]
    if dim not in (1, -2) or token.numel() != token.shape[-1]:
        raise UnsupportedError(f"it joins an array of shape {tuple(token.shape)}, expected one token before others")
    module = ClassToken(token.numel(), token.dtype)
    module.token = nn.Parameter(token.detach().reshape(-1))
    return module, values[1]


def position_embedding(numbers: Tensor, channels_last: bool, count: int) -> nn.Module | None:
    """The module that adds an array of one number for each channel of each pixel, or token; None for another one.

    `count` is the number of channels, 0 for an unknown one.
    """
    if numbers.ndim not in (3, 4) or numbers.shape[0] != 1 or (numbers.ndim == 3 and not channels_last):
        return None
    if count not in (0, numbers.shape[-1 if channels_last else 1]):
        return None
    image = numbers.detach()[0].movedim(-1, 0) if channels_last else numbers.detach()[0]
    image = image.unsqueeze(-1) if numbers.ndim == 3 else image
    channels, rows, columns = image.shape
    module = PositionEmbedding(channels, (rows, columns), numbers.dtype)
    module.embedding = nn.Parameter(image)
    return module
