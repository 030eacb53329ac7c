"""PyTorch's layers as source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from convlab.models.layers.inputs import ONE_IMAGE, Inputs, inputs_in_words
from convlab.models.layers.outputs import template_of
from convlab.models.layers.reading import Part
from convlab.models.layers.spatial import Size
from convlab.models.source.classes import Idiom, classes, layer_list
from convlab.models.source.code import Code, SourceCall, brief, call_of, parameters_of
from convlab.models.source.layers import Written, layer, ours, unwritten
from convlab.models.source.layers import affine as scaled

from ..layers import Conv2D
from . import across_channels, activations
from .activations import clip, composed
from .attention import (
    ClassToken,
    HeadAttention,
    PixelAttention,
    PositionEmbedding,
    WindowAttention,
    attend,
    first_pixel,
)
from .functions import (
    add,
    affine,
    broadcast_like,
    channel_average,
    channel_maximum,
    channel_slice,
    channel_total,
    chunk,
    concatenate,
    depth_to_space,
    divide,
    flatten_pixels,
    greatest,
    least,
    multiply,
    of_rank,
    outputs,
    resize_like,
    subsample,
    subtract,
    total,
    unflatten_pixels,
)
from .modules import ChannelAffine, LayerNorm2d, RMSNorm2d, StochasticDepth


def source(parts: Sequence[Part], size: Size | None, inputs: Inputs = ONE_IMAGE) -> str:
    """See `convlab.models.adapters.Models`."""
    return classes(parts, _IDIOM, inputs_in_words(parts, inputs), inputs)


def _written(part: Part) -> Written:
    native = part.native
    function, options = (native.func, native.keywords) if isinstance(native, partial) else (native, {})
    if function in _FUNCTIONS:
        return Written(inline=_FUNCTIONS[function](**options))
    kind = type(native)
    if kind not in _LAYERS:
        raise unwritten(part, "torch")
    made = _made(native)
    return layer(made, _LAYERS[kind](made))


def _made(native: nn.Module) -> SourceCall:
    """The call that makes a module, which has its arguments as attributes of the same names."""
    kind = type(native)
    if isinstance(native, Conv2D):
        return ours(native.spec)
    options = {name: brief(getattr(native, name)) for name in parameters_of(kind) if name not in ("device", "dtype")}
    if "bias" in options:
        options["bias"] = native.bias is not None
    if isinstance(native, (*_MAXIMA, *_MEANS)) and options["stride"] == options["kernel_size"]:
        options["stride"] = None
    if isinstance(native, _MEANS) and not options["padding"] and not options["ceil_mode"]:
        options["count_include_pad"] = True  # there is none
    dtype = next((parameter.dtype for parameter in native.parameters()), torch.float32)
    if dtype != torch.float32:
        options["dtype"] = Code(str(dtype))
    prefix = "nn." if kind.__name__ in vars(nn) else ""
    return call_of(f"{prefix}{kind.__name__}", kind, **options)


def _layer(made: SourceCall) -> str:
    return ""


def _function(name: str) -> Callable[[SourceCall], str]:
    """The function that computes what a module does, with the same arguments."""
    return lambda made: f"{name}({{0}}{made.rest})"


def _padded(mode: str, rank: int) -> Callable[[SourceCall], str]:
    """`F.pad` with a border."""

    def inline(made: SourceCall) -> str:
        padding, value = made.arguments["padding"], made.arguments.get("value", 0.0)
        pads = padding if isinstance(padding, tuple) else (padding,) * (2 * rank)
        options = {"pad": pads, "mode": mode, "value": value}
        return f"F.pad({{0}}{SourceCall('', options, {'mode': 'constant', 'value': 0.0}, 1).rest})"

    return inline


_RANKS = (1, 2, 3)
_MAXIMA = tuple(of_rank("MaxPool", rank) for rank in _RANKS)
_MEANS = tuple(of_rank("AvgPool", rank) for rank in _RANKS)
_ATTENTION = (PixelAttention, HeadAttention, WindowAttention, ClassToken, PositionEmbedding)
# Each kind of module: the expression that a forward has in its place; none for what has weights or a mode.
_LAYERS: dict[type[nn.Module], Callable[[SourceCall], str]] = {
    Conv2D: _layer,
    **{of_rank(name, rank): _layer for name in ("Conv", "ConvTranspose", "BatchNorm", "Dropout") for rank in _RANKS},
    nn.GroupNorm: _layer,
    nn.PReLU: _layer,
    LayerNorm2d: _layer,
    RMSNorm2d: _layer,
    ChannelAffine: _layer,
    **dict.fromkeys(_ATTENTION, _layer),
    nn.Linear: _layer,
    nn.Dropout: _layer,
    StochasticDepth: _layer,
    nn.Unflatten: _layer,
    **{
        of_rank(name, rank): _function(f"F.{function}{rank}d")
        for name, function in (
            ("MaxPool", "max_pool"),
            ("AvgPool", "avg_pool"),
            ("AdaptiveMaxPool", "adaptive_max_pool"),
            ("AdaptiveAvgPool", "adaptive_avg_pool"),
        )
        for rank in _RANKS
    },
    nn.Flatten: lambda made: f"torch.flatten({{0}}, {made.arguments['start_dim']})",
    **{kind: _function(name) for kind, name in activations.IN_WORDS.items()},
    nn.Softmax: lambda made: f"F.softmax({{0}}, dim={made.arguments['dim']})",
    nn.LogSoftmax: lambda made: f"F.log_softmax({{0}}, dim={made.arguments['dim']})",
    nn.Upsample: _function("F.interpolate"),
    nn.ChannelShuffle: _function("F.channel_shuffle"),
    nn.PixelShuffle: _function("F.pixel_shuffle"),
    nn.PixelUnshuffle: _function("F.pixel_unshuffle"),
    nn.LocalResponseNorm: _function("F.local_response_norm"),
    nn.GLU: lambda made: f"F.glu({{0}}, dim={made.arguments['dim']})",
    **{
        of_rank(name, rank): _padded(mode, rank)
        for name, mode in (
            ("ZeroPad", "constant"),
            ("ConstantPad", "constant"),
            ("ReflectionPad", "reflect"),
            ("ReplicationPad", "replicate"),
            ("CircularPad", "circular"),
        )
        for rank in _RANKS
    },
}


def _limited(limits: dict[str, float | None]) -> str:
    return f"torch.clamp({{0}}{SourceCall('', limits, dict.fromkeys(limits)).rest})"


def _options(options: dict[str, Any]) -> str:
    return SourceCall("", options, {"mode": "nearest", "align_corners": None}).rest


_FUNCTIONS: dict[Any, Callable[..., str]] = {
    add: lambda: "{0} + {1}",
    subtract: lambda: "{0} - {1}",
    multiply: lambda: "{0} * {1}",
    divide: lambda: "{0} / {1}",
    greatest: lambda: "torch.maximum({0}, {1})",
    least: lambda: "torch.minimum({0}, {1})",
    clip: lambda least, most: _limited({"min": least, "max": most}),
    **activations.SOURCES,
    concatenate: lambda: "torch.cat([{all}], dim=1)",
    outputs: lambda names: template_of(names),
    resize_like: lambda **options: f"F.interpolate({{0}}, {{1}}.shape[2:]{_options(options)})",
    broadcast_like: lambda: "{0}.expand(-1, -1, *{1}.shape[2:])",
    affine: scaled,
    subsample: lambda start, step: f"{{0}}[:, :, {start[0]}::{step[0]}, {start[1]}::{step[1]}]",
    flatten_pixels: lambda: "{0}.movedim(1, -1).flatten(1)",
    first_pixel: lambda: "{0}[:, :, 0, 0]",
    attend: lambda heads, scale: f"attend({{0}}, {{1}}, {{2}}, heads={heads}, scale={scale})",
    total: lambda keepdim, rank=2: f"{{0}}.sum(dim={tuple(range(2, rank + 2))}, keepdim={keepdim})",
    channel_total: lambda: "{0}.sum(dim=1, keepdim=True)",
    channel_average: lambda: "{0}.mean(dim=1, keepdim=True)",
    channel_maximum: lambda: "{0}.amax(dim=1, keepdim=True)",
    channel_slice: lambda start, stop: f"{{0}}[:, {start or ''}:{stop or ''}]",
    chunk: lambda index, count: f"{{0}}.chunk({count}, dim=1)[{index}]",
    **across_channels.SOURCES,
    depth_to_space: lambda factor: f"F.pixel_shuffle(F.channel_shuffle({{0}}, {factor**2}), {factor})",
    unflatten_pixels: lambda size: f"{{0}}.unflatten(1, {(*size, -1)}).movedim(-1, 1)",
}
# Classes that the source brings along.
_HELPERS = {kind.__name__: inspect.getsource(kind).rstrip() for kind in (StochasticDepth, LayerNorm2d, RMSNorm2d)}

_IDIOM = Idiom(
    written=_written,
    imports={
        "math": "import math",
        "": "",
        "torch": "import torch",
        "F": "import torch.nn.functional as F",
        "Tensor": "from torch import Tensor",
        "nn": "from torch import nn",
        " ": "",
        "lab": "from convlab import torch as lab",
        "composed": f"from {composed.__module__} import composed",
        **{
            kind.__name__: f"from {kind.__module__} import {kind.__name__}"
            for kind in (*_ATTENTION, ChannelAffine, attend)
        },
    },
    base="nn.Module",
    owner=nn.Module,
    forward="def forward(self, {}):",
    sequential=("nn.Sequential", "nn.Sequential"),
    several=layer_list("nn.ModuleList"),
    opening=("super().__init__()",),
    helpers=_HELPERS,
)
