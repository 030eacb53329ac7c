"""PyTorch's pooling layers, read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import Layer
from convlab.models.layers.pooling import AdaptivePool, GlobalPool, Pool
from convlab.models.layers.spatial import Ends, Size, around, is_padded, per_axis


def rank_of_class(m: nn.Module) -> int:
    """The number of axes that a module's class has in its name."""
    name = next(each.__name__ for each in type(m).__mro__ if each.__module__.startswith("torch."))
    return int(name[-2])


def _max_pool(m: Any) -> Pool:
    rank = rank_of_class(m)
    if max(per_axis(m.dilation, rank)) > 1 or m.return_indices:
        raise UnsupportedError("only PyTorch has a pooling with dilation or return_indices")
    return Pool("max", *_window(m), False, m.ceil_mode)


def _average_pool(m: Any) -> Pool:
    if getattr(m, "divisor_override", None) is not None:
        raise UnsupportedError("only PyTorch has a pooling with divisor_override")
    size, stride, padding = _window(m)
    return Pool("average", size, stride, padding, m.count_include_pad and is_padded(padding), m.ceil_mode)


def _average_of_same(m: Any) -> Layer:
    return replace(_average_pool(m), padding="same", count_padding=m.count_include_pad)


def _window(m: Any) -> tuple[Size, Size, Ends]:
    size, stride, padding = (per_axis(each, rank_of_class(m)) for each in (m.kernel_size, m.stride, m.padding))
    return size, stride, around(padding)


def _adaptive_pool(function: str) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        size = per_axis(m.output_size, rank_of_class(m))
        if None in size:
            raise UnsupportedError(f"only PyTorch has a pooling that keeps the image's rows or columns, {size}")
        return GlobalPool(function, rank=len(size)) if max(size) == 1 else AdaptivePool(function, size)

    return read


READERS: dict[type, Callable[[Any], Layer]] = {
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _average_pool),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), _adaptive_pool("max")),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive_pool("average")),
}

# Classes of others, by the names that they are imported by.
BY_NAME: dict[str, Callable[[Any], Layer]] = {
    "timm.layers.pool2d_same.MaxPool2dSame": lambda m: replace(_max_pool(m), padding="same"),
    "timm.layers.pool2d_same.AvgPool2dSame": _average_of_same,
}
