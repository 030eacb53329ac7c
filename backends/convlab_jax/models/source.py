"""Flax's linen layers as source."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from convlab.models.layers.inputs import ONE_IMAGE, Inputs, inputs_in_words
from convlab.models.layers.reading import Part
from convlab.models.layers.spatial import Size
from convlab.models.source.code import Code, SourceCall, call_of, formatted, imports
from convlab.models.source.forward import variables_of
from convlab.models.source.functions import functions
from convlab.models.source.layers import ours, unwritten

from ..layers import Conv2D, spec_of
from ..shared.source import (
    IMPORTS,
    attention,
    convolution,
    dense,
    dropout,
    dtype,
    function,
    norm,
    transposed,
    windows,
)
from .affine import ChannelAffine, ChannelPReLU
from .attention import ClassToken, PixelAttention, PositionEmbedding, WindowAttention

_ATTENTION = (PixelAttention, WindowAttention, ClassToken, PositionEmbedding)
_IMPORTS = {
    **IMPORTS,
    "nn": "from flax import linen as nn",
    " ": "",
    "lab": "from convlab import jax as lab",
    "ChannelAffine": "from convlab_jax.models.affine import ChannelAffine",
    "ChannelPReLU": "from convlab_jax.models.affine import ChannelPReLU",
    **{kind.__name__: f"from {kind.__module__} import {kind.__name__}" for kind in _ATTENTION},
}


def source(parts: Sequence[Part], size: Size | None, inputs: Inputs = ONE_IMAGE) -> str:
    """See `convlab.models.adapters.Models`: one class, which names its modules as the variables are called."""
    if [part.path for part in parts] == [""]:
        return _text(formatted(f"model = {_alone(parts[0])}", 0), between=1)
    variables = variables_of(inputs)
    sections, statements = functions(parts, _written, variables, "train")
    switch = ", train=False" if re.search(r"\btrain\b", "".join(statements)) else ""
    takes = inputs_in_words(parts, inputs, last=True)
    lines = ["class Model(nn.Module):", f'    """Takes {takes}."""', "", "    @nn.compact"]
    lines.append(f"    def __call__(self, {', '.join(variables.values())}{switch}):")
    lines += [line for each in statements for line in formatted(each, 8)]
    return _text([*(f"{section}\n\n" for section in sections), *lines], between=2)


def _text(lines: Sequence[str], between: int) -> str:
    code = "\n".join(lines)
    return imports(code, _IMPORTS) + "\n" * (between + 1) + code + "\n"


def _alone(part: Part) -> Any:
    if type(part.native) in _LAYERS:
        return _LAYERS[type(part.native)](part.native, {})
    written = function(part.native, "nn")
    if written is None or written.item is None:
        raise unwritten(part, "flax.linen")
    return written.item


def _written(part: Part) -> SourceCall | str:
    """The call that makes a module, named as its variables are, or the expression of a function."""
    if type(part.native) in _LAYERS:
        return _LAYERS[type(part.native)](part.native, {"name": part.path.replace("/", ".")})
    written = function(part.native, "nn")
    if written is None:
        raise unwritten(part, "flax.linen")
    return written.inline


def _convolution(native: nn.Conv, name: dict[str, Any]) -> SourceCall:
    return call_of("nn.Conv", nn.Conv, features=native.features, **convolution(native), **name)


def _norm(native: nn.BatchNorm, name: dict[str, Any]) -> SourceCall:
    told = {"use_running_average": Code("not train")} if name else {}
    return call_of("nn.BatchNorm", nn.BatchNorm, **told, **norm(native), **name)


def _dropout(native: nn.Dropout, name: dict[str, Any]) -> SourceCall:
    return call_of("nn.Dropout", nn.Dropout, **dropout(native), **_told(name))


def _told(name: dict[str, Any]) -> dict[str, Any]:
    return {"deterministic": Code("not train")} if name else {"deterministic": True}


# Each kind of module: the call that makes it, with a name where it isn't alone.
_LAYERS: dict[type, Callable[[Any, dict[str, Any]], SourceCall]] = {
    Conv2D: lambda native, name: ours(spec_of(native), **name),
    nn.Conv: _convolution,
    nn.Dense: lambda native, name: call_of("nn.Dense", nn.Dense, features=native.features, **dense(native), **name),
    nn.BatchNorm: _norm,
    nn.Dropout: _dropout,
    nn.ConvTranspose: lambda native, name: call_of(
        "nn.ConvTranspose", nn.ConvTranspose, features=native.features, **transposed(native), **name
    ),
    nn.GroupNorm: lambda native, name: call_of(
        "nn.GroupNorm", nn.GroupNorm, num_groups=native.num_groups, epsilon=native.epsilon, **dtype(native), **name
    ),
    nn.RMSNorm: lambda native, name: call_of("nn.RMSNorm", nn.RMSNorm, epsilon=native.epsilon, **dtype(native), **name),
    nn.LayerNorm: lambda native, name: call_of(
        "nn.LayerNorm", nn.LayerNorm, epsilon=native.epsilon, **dtype(native), **name
    ),
    nn.PReLU: lambda native, name: call_of("nn.PReLU", nn.PReLU, **dtype(native), **name),
    ChannelPReLU: lambda native, name: call_of("ChannelPReLU", ChannelPReLU, **dtype(native), **name),
    PixelAttention: lambda native, name: call_of(
        "PixelAttention", PixelAttention, **attention(native), **_told(name), **name
    ),
    WindowAttention: lambda native, name: call_of(
        "WindowAttention", WindowAttention, **windows(native), **_told(name), **name
    ),
    ClassToken: lambda native, name: call_of("ClassToken", ClassToken, **dtype(native), **name),
    PositionEmbedding: lambda native, name: call_of(
        "PositionEmbedding", PositionEmbedding, size=tuple(native.size), **dtype(native), **name
    ),
    ChannelAffine: lambda native, name: call_of(
        "ChannelAffine",
        ChannelAffine,
        use_scale=native.use_scale,
        use_bias=native.use_bias,
        trained=native.trained,
        shared=native.shared,
        **dtype(native),
        **name,
    ),
}
