"""PyTorch's own transformer encoders, written without what they decide by the mode, the device and masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from convlab.errors import UnsupportedError


def _layer(layer: Any, x: Tensor, *masks: Any, **named: Any) -> Tensor:
    _check_without_masks(*masks, *named.values())

    def attended(tokens: Tensor) -> Tensor:
        return layer.dropout1(layer.self_attn(tokens, tokens, tokens, need_weights=False)[0])  # type: ignore[no-any-return]

    def widened(tokens: Tensor) -> Tensor:
        hidden = layer.dropout(layer.activation(layer.linear1(tokens)))
        return layer.dropout2(layer.linear2(hidden))  # type: ignore[no-any-return]

    if layer.norm_first:
        x = x + attended(layer.norm1(x))
        return x + widened(layer.norm2(x))
    x = layer.norm1(x + attended(x))
    return layer.norm2(x + widened(x))  # type: ignore[no-any-return]


def _stack(encoder: Any, x: Tensor, *masks: Any, **named: Any) -> Tensor:
    _check_without_masks(*masks, *named.values())
    for layer in encoder.layers:
        x = layer(x)
    return x if encoder.norm is None else encoder.norm(x)


def _check_without_masks(*masks: Any) -> None:
    if not all(mask is None or mask is False for mask in masks):
        raise UnsupportedError("a transformer encoder is given a mask")


FORWARDS: dict[str, Callable[..., Tensor]] = {
    "torch.nn.modules.transformer.TransformerEncoderLayer": _layer,
    "torch.nn.modules.transformer.TransformerEncoder": _stack,
}
