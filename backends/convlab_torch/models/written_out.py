"""Attention as anyone writes it in plain operations: read for what it computes, whatever its words are."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from convlab.models.layers.attention import Attention
from convlab.models.layers.layer import Layer

from ..ops import ops
from .attention import WindowAttention, Written

# How many tokens it is tried on: what depends on how many there are differs on one of them.
_TOKENS = (5, 18)
# The axes of the rows of one dense layer for queries, keys and values: which of the three, heads, channels of a head.
_ORDERS = ((0, 1, 2), (1, 0, 2), (1, 2, 0))


class Words(NamedTuple):
    """How a module has attention.

    Attributes:
        dense: the names of its dense layers, one for queries, keys and values, or three; the last is behind their mean.
        heads: how many there are.
        order: the axes of the rows of a single dense layer.
    """

    dense: tuple[str, ...]
    heads: int
    order: tuple[int, ...] = _ORDERS[0]


class WrittenAttention(Written):
    """A module of tokens (N, L, C) that computes attention, for the pixels of images (N, C, H, W).

    Args:
        inner: the module.
        words: how it has it.
    """

    def __init__(self, inner: nn.Module, words: Words) -> None:
        super().__init__()
        self.inner, self.words = inner, words

    def forward(self, x: Tensor) -> Tensor:
        """The image, each pixel computed from all."""
        y: Tensor = self.inner(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2).reshape(x.shape)

    def layer(self) -> Attention:
        """See `Written.layer`."""
        dense: list[Any] = [self.inner.get_submodule(name) for name in self.words.dense]
        *before, behind = dense
        kernel = np.concatenate([ops.to_numpy(each.weight) for each in before])
        bias = None
        if any(each.bias is not None for each in before):
            biases = (each.bias if each.bias is not None else torch.zeros(each.out_features) for each in before)
            bias = np.concatenate([ops.to_numpy(each) for each in biases]).astype(kernel.dtype)
        if len(before) == 1:
            kernel, bias = _of_order(kernel, self.words), None if bias is None else _of_order(bias, self.words)
        out_bias = None if behind.bias is None else ops.to_numpy(behind.bias)
        drops = (
            each.p for name, each in self.inner.named_children() if name == "attn_drop" and isinstance(each, nn.Dropout)
        )
        arrays = kernel, ops.to_numpy(behind.weight), self.words.heads, bias, out_bias
        return Attention(*arrays, next(drops, 0.0), str(ops.dtype(behind.weight)))

    def arrays_of(self, layer: Attention) -> dict[str, Any]:
        """See `Written.arrays_of`."""
        *before, behind = self.words.dense
        biases = layer.biases() if layer.biased else (None, None)
        arrays = {behind: (layer.out_kernel, biases[1])}
        if len(before) == 1:
            arrays[before[0]] = self._rows(layer.kernel), None if biases[0] is None else self._rows(biases[0])
        else:
            rows = [[None] * 3 if each is None else layer.parts_of(each) for each in (layer.kernel, biases[0])]
            arrays |= dict(zip(before, zip(*rows, strict=True), strict=True))
        return {
            f"inner.{name}.{what}": array
            for name, both in arrays.items()
            for what, array in zip(("weight", "bias"), both, strict=True)
            if array is not None and getattr(self.inner.get_submodule(name), what) is not None
        }

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        """The rows of queries, keys and values as the module has them."""
        by_head = rows.reshape(3, self.words.heads, -1, *rows.shape[1:])
        return by_head.transpose(*self.words.order, *range(3, by_head.ndim)).reshape(rows.shape)


# What was found while a model is being read, which asks several times for each of its modules.
_found: WeakKeyDictionary[nn.Module, Words | None] = WeakKeyDictionary()


def forget() -> None:
    """Forget what was found: the modules may have been changed."""
    _found.clear()


def written_attention(module: Any) -> WrittenAttention | None:
    """A module of anyone's that is self-attention of tokens (N, L, C), with its parameters; None for another one.

    It has nothing but the dense layers of attention. A copy of it, with random numbers, is tried on a few tokens: it
    must compute what attention with them does.
    """
    if not isinstance(module, nn.Module):
        return None
    if module not in _found:
        _found[module] = _words_of(module)
    words = _found[module]
    return None if words is None else WrittenAttention(module, words).train(module.training)


def _words_of(module: nn.Module) -> Words | None:
    candidates = [*_candidates(module)]
    if not candidates:
        return None
    try:
        other = copy.deepcopy(module).eval()
    except Exception:  # Not each module can be copied.
        return None
    numbers = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.from_numpy(numbers.normal(size=parameter.shape) / math.sqrt(parameter.shape[-1])))
    return next((words for words in candidates if _computes(WrittenAttention(other, words), numbers)), None)


def _candidates(module: nn.Module) -> Iterator[Words]:
    """The ways in which a module may have attention, by the sizes of its dense layers."""
    if type(module) is WindowAttention or not next(module.children(), None):
        return
    dense = {name: each for name, each in module.named_modules() if type(each) is nn.Linear}
    inside = sum(1 for each in dense.values() for _ in each.parameters())
    if len(dense) not in (2, 4) or inside != sum(1 for _ in module.parameters()):
        return
    *before, behind = dense
    sizes = [dense[name].out_features for name in before]
    channels, inner = dense[behind].out_features, dense[behind].in_features
    if sum(sizes) != 3 * inner or {dense[name].in_features for name in before} != {channels} or len({*sizes}) > 1:
        return
    counts = {each for each in vars(module).values() if type(each) is int and 1 <= each <= inner and inner % each == 0}
    for heads in sorted(counts | {1}, key=lambda each: (each == 1, each)):
        if len(before) == 1:
            yield from (Words((*before, behind), heads, order) for order in _ORDERS)
        else:
            yield from (Words((*names, behind), heads) for names in permutations(before))


def _computes(module: WrittenAttention, numbers: np.random.Generator) -> bool:
    layer, weight = module.layer(), next(module.parameters())
    for tokens in _TOKENS:
        x = numbers.integers(-4, 5, (2, layer.input_channels, tokens, 1)) / 4.0
        try:
            with torch.no_grad():
                y = module(torch.from_numpy(x).to(weight))
        except Exception:  # The module's own code may fail in any way.
            return False
        error = layer.error(x, np.zeros(x.shape), str(ops.dtype(weight)))
        if not (np.abs(ops.to_numpy(y) - layer.reference(x)) <= error).all():
            return False
    return True


def _of_order(rows: np.ndarray, words: Words) -> np.ndarray:
    """The rows of one dense layer, those of the queries before those of the keys and of the values."""
    sizes = 3, words.heads, len(rows) // (3 * words.heads)
    given = rows.reshape(*(sizes[axis] for axis in words.order), *rows.shape[1:])
    back = [words.order.index(axis) for axis in range(3)]
    return np.ascontiguousarray(given.transpose(*back, *range(3, given.ndim)).reshape(rows.shape))


READERS: dict[type[nn.Module], Callable[[Any], Layer]] = {WrittenAttention: WrittenAttention.layer}
