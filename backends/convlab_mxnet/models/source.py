"""Gluon's layers as source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from convlab.models.layers.activations import Activation, Affine, Clip, PReLU, Softmax, shortest
from convlab.models.layers.attention import Attention, ClassToken, FirstPixel, PositionEmbedding
from convlab.models.layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle
from convlab.models.layers.dot_product import DotProductAttention
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.folded import Convolution1D, Convolution3D
from convlab.models.layers.formulas import FORMULAS
from convlab.models.layers.inputs import ONE_IMAGE, Inputs, inputs_in_words
from convlab.models.layers.joining import Add, BroadcastLike, Concatenate, Divide, Maximum, Minimum, Multiply, Subtract
from convlab.models.layers.layer import LOWEST, BatchNorm, Convolution, Dense, Dropout, Layer, Pad, dtype_of
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from convlab.models.layers.outputs import Outputs, names_in_tuples, template_of
from convlab.models.layers.pixels import Crop, Subsample, Upsample
from convlab.models.layers.pooling import AdaptivePool, ChannelPool, GlobalPool, Pool
from convlab.models.layers.reading import Part
from convlab.models.layers.resizing import Resize, ResizeLike
from convlab.models.layers.shapes import channels_taken
from convlab.models.layers.spatial import Size, starts, to_first
from convlab.models.layers.tokens import ConcatenatePixels
from convlab.models.layers.transposed import TRANSPOSED, TransposedConvolution
from convlab.models.layers.windows import WindowAttention
from convlab.models.source.classes import Idiom, classes
from convlab.models.source.code import Code, SourceCall, brief, call_of, container
from convlab.models.source.layers import Written, affine, layer, ours, unwritten

from .. import attention_blocks, image_blocks
from ..blocks import ELEMENTWISE, Border, Elementwise, semantics
from ..layers import Conv2D
from ..ops import mx
from . import across_channels
from .options import ACTIVATIONS, MODES
from .resizing import resize_like_source

nn = mx.gluon.nn


def source(parts: Sequence[Part], size: Size | None, inputs: Inputs = ONE_IMAGE) -> str:
    """See `convlab.models.adapters.Models`; the functions are those of `mx.np` where the parameters are its arrays."""
    with semantics([part.native for part in parts]) as (numpy, _):
        idiom = replace(_IDIOM, written=lambda part: _written(part, numpy))
    dtypes = {dtype_of(part.layer) for part in parts if part.layer is not None and part.layer.arrays}
    cast = tuple(f'self.cast("{dtype}")' for dtype in sorted(dtypes - {"float32"}))
    return classes(parts, replace(idiom, closing=cast), inputs_in_words(parts, inputs), inputs)


def _written(part: Part, numpy: bool) -> Written:
    if isinstance(part.native, Conv2D):
        return layer(ours(part.native.spec))
    known = part.layer
    write = None if known is None else _LAYERS.get(type(known))
    written = None if write is None else write(known)
    if written is None:
        raise unwritten(part, "MXNet")
    if isinstance(written, SourceCall):
        return layer(written)
    inline, item = written[numpy], written[2] if len(written) > 2 else None
    if item is None and "{1}" not in inline and "{all}" not in inline:
        item = SourceCall("nn.HybridLambda", {"0": Code(f"lambda F, x: {inline.format('x')}")}, positional=1)
    return Written(inline=inline, item=item)


def _flatten(known: Flatten) -> Any:
    if known.order == "HWC":
        return _block(image_blocks.FlattenPixels)
    return "F.flatten({0})", "F.npx.batch_flatten({0})", SourceCall("nn.Flatten", {})


def _convolution(known: Convolution) -> SourceCall:
    spec = known.spec
    kind = getattr(nn, f"Conv{len(spec.kernel_size)}D")
    return call_of(
        f"nn.{kind.__name__}",
        kind,
        channels=spec.out_channels,
        kernel_size=brief(spec.kernel_size),
        strides=brief(spec.stride),
        padding=brief(starts(spec.padding)),
        dilation=brief(spec.dilation),
        groups=spec.groups,
        use_bias=spec.use_bias,
        in_channels=spec.in_channels,
    )


def _pool(known: Pool) -> SourceCall:
    name = "MaxPool" if known.function == "max" else "AvgPool"
    kind = getattr(nn, f"{name}{len(known.size)}D")
    options = {"pool_size": brief(known.size), "strides": brief(known.stride), "padding": brief(starts(known.padding))}
    if options["strides"] == options["pool_size"]:
        options["strides"] = None
    if name == "AvgPool" and options["padding"]:
        options["count_include_pad"] = known.count_padding
    return call_of(f"nn.{kind.__name__}", kind, **options, ceil_mode=known.ceil)


def _global_pool(known: GlobalPool) -> SourceCall:
    if known.function == "sum":
        return _block(image_blocks.GlobalSum, rank=known.rank)
    return SourceCall(f"nn.Global{'Max' if known.function == 'max' else 'Avg'}Pool{known.rank}D", {})


def _batch_norm(known: BatchNorm) -> SourceCall:
    options = {"momentum": known.momentum, "epsilon": known.epsilon, "in_channels": len(known.mean)}
    return call_of("nn.BatchNorm", nn.BatchNorm, **options)


def _dense(known: Dense) -> SourceCall:
    outputs, inputs = known.kernel.shape
    return call_of("nn.Dense", nn.Dense, units=outputs, use_bias=known.bias is not None, flatten=False, in_units=inputs)


def _pad(known: Pad) -> Any:
    options: dict[str, Any]
    if len(known.pads) == 1:  # F.Pad has no sequences
        options = {"pads": known.pads, "mode": MODES.get(known.mode, "constant"), "value": known.value}
        options |= {"value": float("-inf")} if known.mode == LOWEST else {}
        return call_of("Border", Border.__init__, **options)
    value = float("-inf") if known.mode == LOWEST else known.value
    widths = (0, 0, 0, 0, *(n for ends in known.pads for n in ends))
    options = {"mode": MODES.get(known.mode, "constant"), "pad_width": widths}
    written = SourceCall("", {**options, "constant_value": value}, {"constant_value": 0.0}).rest
    return f"F.Pad({{0}}{written})", f"F.Pad({{0}}.as_nd_ndarray(){written}).as_np_ndarray()"


def _activation(known: Activation) -> Any:
    alpha = shortest(known.parameter)  # MXNet holds it in float32
    modules: dict[str, Callable[[], SourceCall]] = {
        "leaky_relu": lambda: call_of("nn.LeakyReLU", nn.LeakyReLU, alpha=alpha),
        "elu": lambda: call_of("nn.ELU", nn.ELU, alpha=alpha),
        "gelu": lambda: SourceCall("nn.GELU", {}),
        "silu": lambda: SourceCall("nn.Swish", {}),
        "selu": lambda: SourceCall("nn.SELU", {}),
    }
    if known.function in modules:
        return modules[known.function]()
    if known.function in FORMULAS and (known.function not in ACTIVATIONS.values() or known.parameter):
        return call_of("Elementwise", Elementwise.__init__, function=known.function, parameter=known.parameter)
    name = next((theirs for theirs, ours_ in ACTIVATIONS.items() if ours_ == known.function), None)
    if name is not None:
        item = SourceCall("nn.Activation", {"activation": name}, positional=1)
        return f'F.Activation({{0}}, act_type="{name}")', f'F.npx.activation({{0}}, act_type="{name}")', item
    return _EXPRESSIONS.get(known.function)


def _clip(known: Clip) -> tuple[str, str]:
    least, most = known.finite_limits
    name = "minimum" if least is None else "maximum" if most is None else "clip"
    limits = "".join(f", {limit}" for limit in (least, most) if limit is not None)
    return f"F.{name}({{0}}{limits})", f"F.np.{name}({{0}}{limits})"


_SHARE = "{clip}({{0}} + 3, 0, 6) / 6"
_EXPRESSIONS = {
    **{name: (f"F.{name}({{0}})", f"F.np.{name}({{0}})") for name in ELEMENTWISE},
    "relu6": ("F.clip({0}, 0, 6)", "F.np.clip({0}, 0, 6)"),
    "hard_sigmoid": (_SHARE.format(clip="F.clip"), _SHARE.format(clip="F.np.clip")),
    "hard_swish": (f"{{0}} * ({_SHARE.format(clip='F.clip')})", f"{{0}} * ({_SHARE.format(clip='F.np.clip')})"),
    "mish": (
        '{0} * F.tanh(F.Activation({0}, act_type="softrelu"))',
        '{0} * F.np.tanh(F.npx.activation({0}, act_type="softrelu"))',
    ),
}


def _repeated(function: str, rank: int) -> str:
    axes = tuple(range(2, rank + 2))
    return f"{function}({{0}}, {{1}}, lhs_axes={axes}, rhs_axes={axes})"


def _unflatten(known: Unflatten) -> tuple[str, str]:
    size = ", ".join(map(str, known.size))
    if known.order == "CHW":
        return f"F.reshape({{0}}, (0, -1, {size}))", f"F.npx.reshape({{0}}, (-2, -1, {size}))"
    axes, order = f"{size}, -1", to_first(len(known.size))
    return (
        f"F.transpose(F.reshape({{0}}, (0, {axes})), {order})",
        f"F.np.transpose(F.npx.reshape({{0}}, (-2, {axes})), {order})",
    )


def _softmax(known: Softmax) -> tuple[str, str]:
    name = "log_softmax" if known.log else "softmax"
    return f"F.{name}({{0}}, axis=1)", f"F.npx.{name}({{0}}, axis=1)"


def _transposed(known: TransposedConvolution) -> SourceCall:
    rank = len(known.stride)
    padding, more = known.own_padding or ((0,) * rank, (0,) * rank)
    return call_of(
        f"nn.Conv{rank}DTranspose",
        getattr(nn, f"Conv{rank}DTranspose"),
        channels=known.output_channels(),
        kernel_size=brief(known.kernel.shape[2:]),
        strides=brief(known.stride),
        padding=brief(padding),
        output_padding=brief(more),
        dilation=brief(known.dilation),
        groups=known.groups,
        use_bias=known.bias is not None,
        in_channels=len(known.kernel),
    )


def _block(block: Any, **options: Any) -> SourceCall:
    """The call of a block of convlab's."""
    return call_of(f"image_blocks.{block.__name__}", block.__init__, **options)


def _attention_block(block: Any, **options: Any) -> SourceCall:
    return call_of(f"attention_blocks.{block.__name__}", block.__init__, **options)


def _attention(block: Any, known: Attention, **further: Any) -> SourceCall:
    options = {"channels": channels_taken(known), "heads": known.heads, "rate": known.rate, "use_bias": known.biased}
    return _attention_block(block, **options, **further)


def _of_fields(block: Any, names: Sequence[str], known: Layer) -> SourceCall:
    return _block(block, **{name: getattr(known, name) for name in names})


# Each kind of layer: the call that makes it; or the expressions for arrays of `mx.nd` and of `mx.np`, and the layer
# that a container has in their place where gluon has one.
_LAYERS: dict[type[Layer], Callable[[Any], Any]] = {
    **dict.fromkeys((Convolution, Convolution1D, Convolution3D), _convolution),
    BatchNorm: _batch_norm,
    **dict.fromkeys(TRANSPOSED, _transposed),
    LayerNorm: lambda known: call_of(
        "nn.LayerNorm", nn.LayerNorm, axis=1, epsilon=known.epsilon, in_channels=len(known.scale)
    ),
    PReLU: lambda known: call_of("nn.PReLU", nn.PReLU, in_channels=len(known.slope)),
    GroupNorm: lambda known: _block(
        image_blocks.GroupNorm, groups=known.groups, channels=len(known.scale), epsilon=known.epsilon
    ),
    RMSNorm: lambda known: _block(image_blocks.RMSNorm, channels=len(known.scale), epsilon=known.epsilon),
    ChannelAffine: lambda known: _block(
        image_blocks.ChannelAffine,
        channels=known.count,
        scale=known.scale is not None,
        shift=known.shift is not None,
        trained=known.trained,
    ),
    Attention: lambda known: _attention(
        attention_blocks.PixelAttention,
        known,
        **({} if known.plain else {"key_size": known.key_size, "value_size": known.value_size}),
    ),
    WindowAttention: lambda known: _attention(
        attention_blocks.WindowAttention,
        known,
        window=known.window,
        shift=known.shift,
        size=known.size,
        cosine=known.cosine,
        grid=known.grid,
    ),
    ClassToken: lambda known: _attention_block(attention_blocks.ClassToken, channels=len(known.token)),
    PositionEmbedding: lambda known: _attention_block(
        attention_blocks.PositionEmbedding, channels=len(known.embedding), size=known.embedding.shape[1:]
    ),
    FirstPixel: lambda known: _attention_block(attention_blocks.FirstPixel),
    DotProductAttention: lambda known: _attention_block(
        attention_blocks.DotProductAttention, heads=known.heads, scale=known.scale
    ),
    **{
        kind: partial(_of_fields, block, names)
        for kind, block, names in (
            (Crop, image_blocks.Crop, ("pads",)),
            (ChannelPool, image_blocks.ChannelPool, ("function",)),
            (AdaptivePool, image_blocks.AdaptiveAveragePool, ("size",)),
            (Subsample, image_blocks.Subsample, ("start", "step")),
            (Upsample, image_blocks.Upsample, ("factor", "method", "align_corners")),
            (Resize, image_blocks.Resize, ("size", "align_corners")),
            (ChannelSlice, image_blocks.ChannelSlice, ("start", "stop")),
            (Chunk, image_blocks.Chunk, ("index", "count")),
            (ChannelShuffle, image_blocks.ChannelShuffle, ("groups",)),
            (PixelShuffle, image_blocks.PixelShuffle, ("factor", "channels_last")),
        )
    },
    **across_channels.SOURCES,
    Dense: _dense,
    Pool: _pool,
    GlobalPool: _global_pool,
    Dropout: lambda known: call_of("nn.Dropout", nn.Dropout, rate=known.rate, axes=known.axes()),
    Pad: _pad,
    Activation: _activation,
    Clip: _clip,
    Softmax: _softmax,
    Affine: lambda known: (affine(known.scale, known.shift),) * 2,
    Flatten: _flatten,
    Unflatten: _unflatten,
    Add: lambda known: ("{0} + {1}",) * 2,
    Subtract: lambda known: ("F.broadcast_sub({0}, {1})", "{0} - {1}"),
    Divide: lambda known: ("F.broadcast_div({0}, {1})", "{0} / {1}"),
    Maximum: lambda known: ("F.broadcast_maximum({0}, {1})", "F.np.maximum({0}, {1})"),
    Minimum: lambda known: ("F.broadcast_minimum({0}, {1})", "F.np.minimum({0}, {1})"),
    Multiply: lambda known: ("F.broadcast_mul({0}, {1})", "{0} * {1}"),
    Concatenate: lambda known: ("F.concat({all}, dim=1)", "F.np.concatenate([{all}], axis=1)"),
    Outputs: lambda known: (template_of(names_in_tuples(known.names)),) * 2,
    ConcatenatePixels: lambda known: (
        "F.concat(*[F.reshape(each, (0, 0, -1, 1)) for each in ({all})], dim=2)",
        "F.np.concatenate([F.npx.reshape(each, (-2, -2, -1, 1)) for each in ({all})], axis=2)",
    ),
    ResizeLike: resize_like_source,
    BroadcastLike: lambda known: (
        _repeated("F.broadcast_like", known.rank),
        _repeated("F.npx.broadcast_like", known.rank),
    ),
}

_SEQUENTIAL = """def sequential(*blocks):
    net = nn.HybridSequential()
    net.add(*blocks)
    return net"""

_IDIOM = Idiom(
    written=lambda part: _written(part, numpy=False),
    imports={
        "math": "import math",
        "": "",
        "nn": "from mxnet.gluon import nn",
        " ": "",
        "lab": "from convlab import mxnet as lab",
        "attention_blocks": "from convlab_mxnet import attention_blocks",
        "image_blocks": "from convlab_mxnet import image_blocks",
        "channel_blocks": "from convlab_mxnet import channel_blocks",
        **{name: f"from convlab_mxnet.blocks import {name}" for name in ("Border", "Elementwise")},
    },
    base="nn.HybridBlock",
    owner=nn.HybridBlock,
    forward="def hybrid_forward(self, F, {}):",
    sequential=("sequential", "nn.HybridSequential"),
    several=partial(container, "sequential"),
    opening=("super().__init__()",),
    adds=True,
    helpers={"sequential": _SEQUENTIAL},
)
