"""Flax's nnx layers as source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from flax import nnx

from convlab.models.layers.inputs import ONE_IMAGE, Inputs, inputs_in_words
from convlab.models.layers.reading import Part
from convlab.models.layers.spatial import Size
from convlab.models.source.classes import Idiom, classes, layer_list
from convlab.models.source.code import Code, SourceCall, call_of
from convlab.models.source.layers import Written, layer, ours, unwritten

from ..nnx import Conv2D
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
_RNGS: dict[str, Any] = {"rngs": Code("rngs")}


def source(parts: Sequence[Part], size: Size | None, inputs: Inputs = ONE_IMAGE) -> str:
    """See `convlab.models.adapters.Models`; nnx names the layers of a Sequential by numbers."""
    numbered = [Part(p.path.removeprefix("layers/"), p.native, p.layer, p.note, p.inputs, p.value) for p in parts]
    idiom = _IDIOM if numbered[0].path else replace(_IDIOM, written=_alone)
    return classes(numbered, idiom, inputs_in_words(parts, inputs, last=True), inputs)


def _alone(part: Part) -> Written:
    """A layer that isn't made in a constructor."""
    return Written(item=Code(str(_written(part).item).replace("rngs=rngs", "rngs=nnx.Rngs(0)")))


def _written(part: Part) -> Written:
    native = part.native
    if type(native) in _LAYERS:
        return layer(_LAYERS[type(native)](native))
    written = function(native, "nnx")
    if written is None:
        raise unwritten(part, "flax.nnx")
    return written


def _convolution(native: nnx.Conv) -> SourceCall:
    features = {"in_features": native.in_features, "out_features": native.out_features}
    return call_of("nnx.Conv", nnx.Conv.__init__, **features, **convolution(native), **_RNGS)


def _transposed(native: nnx.ConvTranspose) -> SourceCall:
    features = {"in_features": native.in_features, "out_features": native.out_features}
    return call_of("nnx.ConvTranspose", nnx.ConvTranspose.__init__, **features, **transposed(native), **_RNGS)


def _linear(native: nnx.Linear) -> SourceCall:
    features = {"in_features": native.in_features, "out_features": native.out_features}
    return call_of("nnx.Linear", nnx.Linear.__init__, **features, **dense(native), **_RNGS)


# Each kind of module: the call that makes it.
_LAYERS: dict[type, Callable[[Any], SourceCall]] = {
    Conv2D: lambda native: ours(native.spec, "lab.nnx.Conv2D", **_RNGS),
    nnx.Conv: _convolution,
    nnx.Linear: _linear,
    nnx.BatchNorm: lambda native: call_of(
        "nnx.BatchNorm", nnx.BatchNorm.__init__, num_features=native.num_features, **norm(native), **_RNGS
    ),
    nnx.Dropout: lambda native: call_of("nnx.Dropout", nnx.Dropout.__init__, **dropout(native), **_RNGS),
    nnx.ConvTranspose: _transposed,
    nnx.GroupNorm: lambda native: call_of(
        "nnx.GroupNorm",
        nnx.GroupNorm.__init__,
        num_features=len(native.scale[...]),
        num_groups=native.num_groups,
        epsilon=native.epsilon,
        **dtype(native),
        **_RNGS,
    ),
    nnx.RMSNorm: lambda native: call_of(
        "nnx.RMSNorm",
        nnx.RMSNorm.__init__,
        num_features=native.num_features,
        epsilon=native.epsilon,
        **dtype(native),
        **_RNGS,
    ),
    nnx.LayerNorm: lambda native: call_of(
        "nnx.LayerNorm",
        nnx.LayerNorm.__init__,
        num_features=native.num_features,
        epsilon=native.epsilon,
        **dtype(native),
        **_RNGS,
    ),
    nnx.PReLU: lambda native: call_of("nnx.PReLU", nnx.PReLU.__init__, **dtype(native)),
    ChannelPReLU: lambda native: SourceCall(
        "ChannelPReLU", {"channels": len(native.negative_slope[...])}, positional=1
    ),
    PixelAttention: lambda native: call_of(
        "PixelAttention",
        PixelAttention.__init__,
        in_features=native.in_features,
        **attention(native),
        deterministic=False,
        **_RNGS,
    ),
    WindowAttention: lambda native: call_of(
        "WindowAttention", WindowAttention.__init__, channels=native.channels, **windows(native), **_RNGS
    ),
    ClassToken: lambda native: call_of(
        "ClassToken", ClassToken.__init__, channels=len(native.token[...]), **dtype(native)
    ),
    PositionEmbedding: lambda native: call_of(
        "PositionEmbedding",
        PositionEmbedding.__init__,
        channels=native.embedding[...].shape[2],
        size=native.embedding[...].shape[:2],
        **dtype(native),
    ),
    ChannelAffine: lambda native: call_of(
        "ChannelAffine",
        ChannelAffine.__init__,
        channels=len((native.bias if native.scale is None else native.scale)[...]),
        use_scale=native.scale is not None,
        use_bias=native.bias is not None,
        trained=native.trained,
    ),
}

_IDIOM = Idiom(
    written=_written,
    imports={
        **IMPORTS,
        "nnx": "from flax import nnx",
        " ": "",
        "lab": "from convlab import jax as lab",
        "ChannelAffine": "from convlab_jax.nnx_models.affine import ChannelAffine",
        "ChannelPReLU": "from convlab_jax.nnx_models.affine import ChannelPReLU",
        **{kind.__name__: f"from {kind.__module__} import {kind.__name__}" for kind in _ATTENTION},
    },
    base="nnx.Module",
    owner=nnx.Module,
    forward="def __call__(self, {}):",
    sequential=("nnx.Sequential", "nnx.Sequential"),
    several=layer_list("nnx.List"),
    passed=("rngs",),
)
