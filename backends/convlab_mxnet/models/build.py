"""Gluon's layers, built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from convlab.errors import UnsupportedError
from convlab.models.adapters import Node, is_sequence
from convlab.models.layers.activations import Activation, Affine, Clip, PReLU, Softmax
from convlab.models.layers.attention import Attention, ClassToken, FirstPixel, PositionEmbedding
from convlab.models.layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle
from convlab.models.layers.dot_product import DotProductAttention
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.folded import Convolution1D, Convolution3D
from convlab.models.layers.inputs import ONE_IMAGE, Inputs
from convlab.models.layers.joining import Add, BroadcastLike, Concatenate, Divide, Maximum, Minimum, Multiply, Subtract
from convlab.models.layers.layer import LOWEST, BatchNorm, Convolution, Dense, Dropout, Layer, Pad
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from convlab.models.layers.outputs import Outputs
from convlab.models.layers.pixels import Crop, Subsample, Upsample
from convlab.models.layers.pooling import AdaptivePool, ChannelPool, GlobalPool, Pool, lacks_adaptive
from convlab.models.layers.reading import ArrayNames
from convlab.models.layers.resizing import Resize, ResizeLike
from convlab.models.layers.shapes import channels_taken
from convlab.models.layers.spatial import around, depends_on_size, is_around, is_padded, starts
from convlab.models.layers.transposed import TRANSPOSED, TransposedConvolution
from convlab.models.layers.windows import WindowAttention

from .. import attention_blocks, channel_blocks, image_blocks, private
from .. import blocks as nn
from ..layers import Conv2D
from ..ops import mx
from . import across_channels
from .options import ACTIVATIONS, MODES, Block, rounds_alike
from .resizing import build_resize, build_resize_like, build_upsample

_NAMES = ArrayNames("running_mean", "running_var", "gamma", "beta", kernel="weight", slope="alpha", channels_last=False)
_OURS = 'layers="convlab" has it.'


def build(layer: Layer, style: str) -> list[Block]:
    """See `convlab.models.adapters.Models`.

    Parameters are arrays of `mx.np` where `npx.set_np()` holds, otherwise of `mx.nd`.
    """
    return _BUILDERS[type(layer)](layer, style)


def _filled(block: Block, dtype: str, **arrays: np.ndarray | None) -> Block:
    block.cast(dtype)
    block.initialize(mx.init.Zero())  # zeros, so that no random numbers are drawn
    for name, array in arrays.items():
        if array is not None:
            getattr(block, name).set_data(tensor(array, dtype, mx.util.is_np_array()))
    return block


def tensor(array: np.ndarray, dtype: str, numpy: bool, ctx: Any = None) -> Any:
    """A NumPy array as an array of `mx.np` or else of `mx.nd`."""
    return (mx.np if numpy else mx.nd).array(np.ascontiguousarray(array), dtype=dtype, ctx=ctx)


def check_dtype(dtype: str, what: str = "convolution") -> None:
    """Refuse a dtype in which MXNet has no such layer."""
    if dtype not in ("float32", "float64"):
        hint = _OURS if (what, dtype) == ("convolution", "float16") else "float32 holds the same numbers."
        raise UnsupportedError(f"MXNet has no {what} in {dtype} on CPUs.", hint=hint)


def _build_convolution(layer: Convolution, style: str) -> list[Block]:
    spec = layer.spec
    if style == "convlab":
        options, weight = layer.ours_for("NCHW")
        return [_filled(Conv2D(**options), str(spec.dtype), weight=weight, bias=layer.bias)]
    dtype = str(spec.dtype)
    check_dtype(dtype)
    if isinstance(spec.padding, str):
        raise depends_on_size(spec.padding)
    pads, before = spec.padding, []
    zeros = spec.padding_mode == "zeros" and not spec.padding_value
    if not is_around(pads) or (not zeros and is_padded(pads)):
        before, pads = _build_pad(Pad.before(spec), style), around((0,) * len(pads))
    conv = nn.of_rank("Conv", len(pads))(
        spec.out_channels,
        spec.kernel_size,
        spec.stride,
        starts(pads),
        spec.dilation,
        spec.groups,
        use_bias=spec.use_bias,
        in_channels=spec.in_channels,
    )
    return [*before, _filled(conv, dtype, **_NAMES.arrays(layer))]


def _build_pad(layer: Pad, style: str) -> list[Block]:
    kind = nn.Pad2D if len(layer.pads) == 2 else nn.Border
    if layer.mode == LOWEST:
        return [kind(layer.pads, value=-math.inf)]
    if layer.mode not in MODES:
        raise UnsupportedError(f"MXNet pads with zeros, reflect or replicate, not {layer.mode}.", hint=_OURS)
    return [kind(layer.pads, MODES[layer.mode], layer.value)]


def _build_pool(layer: Pool, style: str) -> list[Block]:
    if isinstance(layer.padding, str):
        raise depends_on_size(layer.padding)
    if not is_around(layer.padding):
        raise UnsupportedError(f"MXNet's pooling has no padding {layer.padding}.", hint="pad before it.")
    if layer.ceil and not rounds_alike(layer):
        raise UnsupportedError(
            "With MXNet's ceil_mode, windows may begin beyond the image; with this pooling's they don't."
        )
    window, rank = (layer.size, layer.stride, starts(layer.padding)), len(layer.size)
    if layer.function == "max":
        return [nn.of_rank("MaxPool", rank)(*window, ceil_mode=layer.ceil)]
    counted = layer.count_padding
    return [nn.of_rank("AvgPool", rank)(*window, ceil_mode=layer.ceil, count_include_pad=counted)]


def _build_global_pool(layer: GlobalPool, style: str) -> list[Block]:
    if layer.function == "sum":
        pool: Block = image_blocks.GlobalSum(layer.rank)
    else:
        pool = nn.of_rank("GlobalMaxPool" if layer.function == "max" else "GlobalAvgPool", layer.rank)()
    return [pool] if layer.keepdims else [pool, nn.Flatten()]


def _build_adaptive_pool(layer: AdaptivePool, style: str) -> list[Block]:
    if layer.function != "average" or len(layer.size) != 2:
        lacks_adaptive(layer)
    rows, columns = layer.size
    return [image_blocks.AdaptiveAveragePool((rows, columns))]


def _build_batch_norm(layer: BatchNorm, style: str) -> list[Block]:
    check_dtype(layer.dtype, "batch normalisation")
    norm = nn.BatchNorm(momentum=layer.momentum, epsilon=layer.epsilon, in_channels=len(layer.mean))
    return [_filled(norm, layer.dtype, **_NAMES.arrays(layer))]


def _build_group_norm(layer: GroupNorm, style: str) -> list[Block]:
    check_dtype(layer.dtype, "normalisation")
    norm = image_blocks.GroupNorm(layer.groups, len(layer.scale), layer.epsilon)
    return [_filled(norm, layer.dtype, **_NAMES.arrays(layer))]


def _build_layer_norm(layer: LayerNorm, style: str) -> list[Block]:
    check_dtype(layer.dtype, "normalisation")
    norm = nn.LayerNorm(axis=1, epsilon=layer.epsilon, in_channels=len(layer.scale))
    return [_filled(norm, layer.dtype, **_NAMES.arrays(layer))]


def _build_rms_norm(layer: RMSNorm, style: str) -> list[Block]:
    check_dtype(layer.dtype, "normalisation")
    norm = image_blocks.RMSNorm(len(layer.scale), layer.epsilon)
    return [_filled(norm, layer.dtype, **_NAMES.arrays(layer))]


def _build_channel_affine(layer: ChannelAffine, style: str) -> list[Block]:
    has = layer.scale is not None, layer.shift is not None
    affine = image_blocks.ChannelAffine(layer.count, *has, layer.trained)
    return [_filled(affine, layer.dtype, **_NAMES.arrays(layer))]


def _build_transposed(layer: TransposedConvolution, style: str) -> list[Block]:
    check_dtype(layer.dtype, "transposed convolution")
    padding = layer.own_padding
    if padding is None:
        raise UnsupportedError(f"MXNet has no transposed convolution whose result is cropped by {layer.crop}.")
    conv = nn.of_rank("Conv", len(layer.stride), "Transpose")(
        layer.output_channels(),
        layer.kernel.shape[2:],
        layer.stride,
        *padding,
        layer.dilation,
        layer.groups,
        use_bias=layer.bias is not None,
        in_channels=len(layer.kernel),
    )
    return [_filled(conv, layer.dtype, **_NAMES.arrays(layer))]


def _build_attention(layer: Attention, style: str) -> list[Block]:
    check_dtype(layer.dtype, "attention")
    channels, heads = channels_taken(layer), layer.heads
    if isinstance(layer, WindowAttention):
        where, options = (layer.window, layer.shift), (layer.rate, layer.biased)
        block = attention_blocks.WindowAttention(
            channels, heads, *where, *options, layer.size, layer.cosine, layer.grid
        )
    else:
        sizes = (None, None) if layer.plain else (layer.key_size, layer.value_size)
        block = attention_blocks.PixelAttention(channels, heads, layer.rate, layer.biased, *sizes)
    return [_filled(block, layer.dtype, **_arrays_of_attention(layer))]


def _build_class_token(layer: ClassToken, style: str) -> list[Block]:
    block = attention_blocks.ClassToken(len(layer.token))
    return [_filled(block, layer.dtype, **_arrays_of_attention(layer))]


def _build_position_embedding(layer: PositionEmbedding, style: str) -> list[Block]:
    channels, rows, columns = layer.embedding.shape
    block = attention_blocks.PositionEmbedding(channels, (rows, columns))
    return [_filled(block, layer.dtype, **_arrays_of_attention(layer))]


def _arrays_of_attention(layer: Attention | ClassToken | PositionEmbedding) -> dict[str, np.ndarray]:
    """A layer's arrays by the names that the blocks have for them."""
    if not isinstance(layer, Attention):
        return {name: getattr(layer, name) for name in layer.arrays}
    arrays = {"qkv_weight": layer.kernel, "out_weight": layer.out_kernel}
    if layer.biased:
        arrays |= dict(zip(("qkv_bias", "out_bias"), layer.biases(), strict=True))
    if isinstance(layer, WindowAttention):
        arrays |= {"table": layer.table, **({} if layer.scale is None else {"scale": layer.scale})}
    return arrays


def _build_flatten(layer: Flatten, style: str) -> list[Block]:
    return [nn.Flatten() if layer.order == "CHW" else image_blocks.FlattenPixels()]


def _build_dense(layer: Dense, style: str) -> list[Block]:
    check_dtype(layer.dtype, "dense layer")
    outputs, inputs = layer.kernel.shape
    dense = nn.Dense(outputs, use_bias=layer.bias is not None, flatten=False, in_units=inputs)
    return [_filled(dense, layer.dtype, **_NAMES.arrays(layer))]


def _build_activation(layer: Activation, style: str) -> list[Block]:
    constructors: dict[str, Callable[[], Block]] = {
        "relu6": nn.ReLU6,
        "leaky_relu": lambda: nn.LeakyReLU(layer.parameter),
        "elu": lambda: nn.ELU(layer.parameter),
        "gelu": nn.GELU,
        "silu": nn.Swish,
        "hard_sigmoid": nn.HardSigmoid,
        "hard_swish": partial(nn.HardSigmoid, times_x=True),
        "mish": nn.Mish,
        "selu": nn.SELU,
        **{ours: partial(nn.Activation, theirs) for theirs, ours in ACTIVATIONS.items()},
    }
    if layer.function == "leaky_relu" and layer.parameter < 0:
        raise UnsupportedError(f"MXNet has no {layer.function} with parameter {layer.parameter}.")
    if layer.function not in constructors or (layer.function == "softplus" and layer.parameter):
        return [nn.Elementwise(layer.function, layer.parameter)]
    return [constructors[layer.function]()]


def _build_clip(layer: Clip, style: str) -> list[Block]:
    least, most = layer.finite_limits
    return [nn.Clip(least, most)]


_BUILDERS: dict[type[Layer], Callable[[Any, str], list[Block]]] = {
    **dict.fromkeys((Convolution, Convolution1D, Convolution3D), _build_convolution),
    Pad: _build_pad,
    Pool: _build_pool,
    GlobalPool: _build_global_pool,
    AdaptivePool: _build_adaptive_pool,
    **dict.fromkeys(TRANSPOSED, _build_transposed),
    BatchNorm: _build_batch_norm,
    GroupNorm: _build_group_norm,
    LayerNorm: _build_layer_norm,
    RMSNorm: _build_rms_norm,
    ChannelAffine: _build_channel_affine,
    Attention: _build_attention,
    WindowAttention: _build_attention,
    ClassToken: _build_class_token,
    PositionEmbedding: _build_position_embedding,
    FirstPixel: lambda layer, style: [attention_blocks.FirstPixel()],
    DotProductAttention: lambda layer, style: [attention_blocks.DotProductAttention(layer.heads, layer.scale)],
    Crop: lambda layer, style: [image_blocks.Crop(layer.pads)],
    ChannelPool: lambda layer, style: [image_blocks.ChannelPool(layer.function)],
    Subsample: lambda layer, style: [image_blocks.Subsample(layer.start, layer.step)],
    Upsample: build_upsample,
    ChannelSlice: lambda layer, style: [image_blocks.ChannelSlice(layer.start, layer.stop)],
    Chunk: lambda layer, style: [image_blocks.Chunk(layer.index, layer.count)],
    ChannelShuffle: lambda layer, style: [image_blocks.ChannelShuffle(layer.groups)],
    PixelShuffle: lambda layer, style: [image_blocks.PixelShuffle(layer.factor, layer.channels_last)],
    Dropout: lambda layer, style: [nn.Dropout(layer.rate, layer.axes())],
    Unflatten: lambda layer, style: [nn.Unflatten(layer.size, layer.order)],
    Flatten: _build_flatten,
    Dense: _build_dense,
    Activation: _build_activation,
    Clip: _build_clip,
    PReLU: lambda layer, style: [_filled(nn.PReLU(in_channels=len(layer.slope)), layer.dtype, alpha=layer.slope)],
    Softmax: lambda layer, style: [nn.Softmax(layer.log)],
    Affine: lambda layer, style: [nn.Affine(layer.scale, layer.shift)],
    Add: lambda layer, style: [nn.Add()],
    Subtract: lambda layer, style: [nn.Subtract()],
    Multiply: lambda layer, style: [nn.Multiply()],
    Divide: lambda layer, style: [nn.Divide()],
    Maximum: lambda layer, style: [channel_blocks.Maximum()],
    Minimum: lambda layer, style: [channel_blocks.Minimum()],
    Concatenate: lambda layer, style: [nn.Concatenate()],
    BroadcastLike: lambda layer, style: [nn.BroadcastLike(layer.rank)],
    Outputs: lambda layer, style: [nn.Outputs(layer.names)],
    **across_channels.BUILDERS,
    Resize: build_resize,
    ResizeLike: build_resize_like,
}


def arrays_of(native: Any, layer: Any) -> dict[str, np.ndarray]:
    """A layer's arrays by the names and in the layout that a block has them; none for another part of its path."""
    if layer is None or not isinstance(native, mx.gluon.Block) or not private.parameters(native):
        return {}
    if isinstance(layer, (Attention, ClassToken, PositionEmbedding)):
        return _arrays_of_attention(layer)
    return _NAMES.arrays(layer, native.spec.data_format if isinstance(native, Conv2D) else None)


def assemble(nodes: Sequence[Node], inputs: Inputs = ONE_IMAGE) -> Block:
    """See `convlab.models.adapters.Models`."""
    if not is_sequence(nodes):
        return nn.Network(nodes, [*inputs])
    net = nn.HybridSequential()
    for wanted, native, _, _ in nodes:
        taken = private.children(net)
        net.register_child(
            native, next(name for n in count() if (name := f"{wanted}_{n}" if n else wanted) not in taken)
        )
    return net
