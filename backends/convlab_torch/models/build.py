"""PyTorch's layers, built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import nn

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
from convlab.models.layers.pooling import AdaptivePool, ChannelPool, GlobalPool, Pool
from convlab.models.layers.reading import ArrayNames
from convlab.models.layers.resizing import Resize, ResizeLike
from convlab.models.layers.shapes import channels_taken
from convlab.models.layers.spatial import Ends, depends_on_size, is_around, is_padded, starts
from convlab.models.layers.transposed import TRANSPOSED, TransposedConvolution
from convlab.models.layers.windows import WindowAttention

from ..layers import Conv2D
from . import across_channels, attention, functions, modules, resizing
from .activations import build_activation, build_clip
from .attention import PixelAttention, first_pixel
from .channel_convolutions import RowConvolution
from .functions import add, affine, concatenate, multiply
from .modules import StochasticDepth
from .network import Network, sequential
from .resizing import LINEAR

_NAMES = ArrayNames(
    "running_mean", "running_var", "weight", "bias", kernel="weight", slope="weight", channels_last=False
)
_PADS = {"zeros": "ZeroPad", "reflect": "ReflectionPad", "replicate": "ReplicationPad", "circular": "CircularPad"}


def build(layer: Layer, style: str) -> list[Any]:
    """See `convlab.models.adapters.Models`."""
    return _BUILDERS[type(layer)](layer, style)


def filled(module: nn.Module, **arrays: np.ndarray | None) -> nn.Module:
    """A module in inference mode, once its parameters and buffers of these names have these numbers."""
    for name, array in arrays.items():
        if array is not None:
            attrgetter(name)(module).detach().copy_(torch.from_numpy(np.array(array)))
    return module.eval()


def _build_convolution(layer: Convolution, style: str) -> list[nn.Module]:
    spec = layer.spec
    if style == "convlab":
        options, weight = layer.ours_for("NCHW")
        return [filled(Conv2D(**options), weight=weight, bias=layer.bias)]
    before: list[nn.Module] = []
    if isinstance(spec.padding, str):
        raise depends_on_size(spec.padding)
    ours = spec.padding_mode == "symmetric" or spec.padding_value
    if is_padded(spec.padding) and (ours or not is_around(spec.padding)):  # torch's convolution can't express it
        before = _build_pad(Pad.before(spec), style)
    outputs, inputs = layer.kernel.shape[:2]
    conv = functions.of_rank("Conv", len(spec.kernel_size))(
        inputs * spec.groups,
        outputs,
        spec.kernel_size,
        spec.stride,
        0 if before else starts(spec.padding),
        spec.dilation,
        spec.groups,
        spec.use_bias,
        "zeros" if before else spec.padding_mode,
        dtype=getattr(torch, str(spec.dtype)),
    )
    return [*before, filled(conv, weight=layer.kernel, bias=layer.bias)]


def _build_pad(layer: Pad, style: str) -> list[nn.Module]:
    rank, pads = len(layer.pads), _last_first(layer.pads)
    if layer.value or layer.mode == LOWEST:
        return [functions.of_rank("ConstantPad", rank)(pads, layer.value or -math.inf)]
    if layer.mode not in _PADS:
        raise UnsupportedError(
            f"torch has no layer that pads with {layer.mode!r}.", hint="layers='convlab' makes convlab's own layer."
        )
    return [functions.of_rank(_PADS[layer.mode], rank)(pads)]


def _last_first(pads: Ends) -> tuple[int, ...]:
    """Both ends of each axis, as PyTorch has them."""
    return tuple(n for ends in reversed(pads) for n in ends)


def _build_pool(layer: Pool, style: str) -> list[nn.Module]:
    if isinstance(layer.padding, str):
        raise depends_on_size(layer.padding)
    if not is_around(layer.padding):
        raise UnsupportedError(f"torch's pooling has no padding {layer.padding}.", hint="pad before it.")
    window = layer.size, layer.stride, starts(layer.padding)
    if layer.function == "max":
        return [functions.of_rank("MaxPool", len(layer.size))(*window, ceil_mode=layer.ceil)]
    return [functions.of_rank("AvgPool", len(layer.size))(*window, layer.ceil, layer.count_padding)]


def _build_global_pool(layer: GlobalPool, style: str) -> list[Any]:
    if layer.function == "sum":
        return [partial(functions.total, keepdim=layer.keepdims, rank=layer.rank)]
    pool = functions.of_rank(_ADAPTIVE[layer.function], layer.rank)(1)
    return [pool] if layer.keepdims else [pool, nn.Flatten()]


_ADAPTIVE = {"max": "AdaptiveMaxPool", "average": "AdaptiveAvgPool"}


def _build_adaptive_pool(layer: AdaptivePool, style: str) -> list[nn.Module]:
    return [functions.of_rank(_ADAPTIVE[layer.function], len(layer.size))(layer.size)]


def _build_batch_norm(layer: BatchNorm, style: str) -> list[nn.Module]:
    momentum, kind = round(1 - layer.momentum, 12), functions.of_rank("BatchNorm", layer.rank or 1)
    norm = kind(len(layer.mean), layer.epsilon, momentum, dtype=getattr(torch, layer.dtype))
    return [filled(norm, **arrays_of(norm, layer))]


def _build_group_norm(layer: GroupNorm, style: str) -> list[nn.Module]:
    norm = nn.GroupNorm(layer.groups, len(layer.scale), layer.epsilon, dtype=getattr(torch, layer.dtype))
    return [filled(norm, **_NAMES.arrays(layer))]


def _build_layer_norm(layer: LayerNorm, style: str) -> list[nn.Module]:
    norm = modules.LayerNorm2d(len(layer.scale), layer.epsilon, dtype=getattr(torch, layer.dtype))
    return [filled(norm, **_NAMES.arrays(layer))]


def _build_rms_norm(layer: RMSNorm, style: str) -> list[nn.Module]:
    norm = modules.RMSNorm2d(len(layer.scale), layer.epsilon, dtype=getattr(torch, layer.dtype))
    return [filled(norm, **_NAMES.arrays(layer))]


def _build_channel_affine(layer: ChannelAffine, style: str) -> list[nn.Module]:
    has = layer.scale is not None, layer.shift is not None
    module = modules.ChannelAffine(layer.count, *has, layer.trained)
    return [filled(module.to(getattr(torch, layer.dtype)), **_NAMES.arrays(layer))]


def _build_transposed(layer: TransposedConvolution, style: str) -> list[nn.Module]:
    padding = layer.own_padding
    if padding is None:
        raise UnsupportedError(f"torch has no transposed convolution whose result is cropped by {layer.crop}.")
    conv = functions.of_rank("ConvTranspose", len(layer.stride))(
        len(layer.kernel),
        layer.output_channels(),
        layer.kernel.shape[2:],
        layer.stride,
        *padding,
        layer.groups,
        layer.bias is not None,
        layer.dilation,
        dtype=getattr(torch, layer.dtype),
    )
    return [filled(conv, **_NAMES.arrays(layer))]


def _build_crop(layer: Crop, style: str) -> list[nn.Module]:
    return [functions.of_rank("ZeroPad", len(layer.pads))(tuple(-n for n in _last_first(layer.pads)))]


def _build_upsample(layer: Upsample, style: str) -> list[nn.Module]:
    factor = tuple(map(float, layer.factor))
    mode = LINEAR[len(factor)] if layer.method == "bilinear" else layer.method
    return [nn.Upsample(scale_factor=factor, mode=mode, align_corners=_aligned(layer))]


def _build_resize(layer: Resize, style: str) -> list[nn.Module]:
    return [nn.Upsample(layer.size, mode=resizing.RESIZING[layer.method], align_corners=_aligned(layer))]


def _build_resize_like(layer: ResizeLike, style: str) -> list[Any]:
    mode = resizing.RESIZING[layer.method]
    return [partial(functions.resize_like, mode=mode, align_corners=_aligned(layer))]


def _aligned(layer: Upsample | Resize | ResizeLike) -> bool | None:
    """PyTorch takes it for bilinear interpolation alone."""
    return layer.align_corners if layer.method == "bilinear" else None


def _build_pixel_shuffle(layer: PixelShuffle, style: str) -> list[Any]:
    last = partial(functions.depth_to_space, factor=layer.factor)
    return [last if layer.channels_last else nn.PixelShuffle(layer.factor)]


def _build_flatten(layer: Flatten, style: str) -> list[Any]:
    return [nn.Flatten() if layer.order == "CHW" else functions.flatten_pixels]


def _build_unflatten(layer: Unflatten, style: str) -> list[Any]:
    if layer.order == "HWC":
        return [partial(functions.unflatten_pixels, size=layer.size)]
    return [nn.Unflatten(1, (-1, *layer.size))]


def _build_dropout(layer: Dropout, style: str) -> list[nn.Module]:
    kind = functions.of_rank("Dropout", layer.rank) if layer.channels else nn.Dropout
    return [(StochasticDepth if layer.images else kind)(layer.rate).eval()]


def _build_dense(layer: Dense, style: str) -> list[nn.Module]:
    outputs, inputs = layer.kernel.shape
    dense = nn.Linear(inputs, outputs, layer.bias is not None, dtype=getattr(torch, layer.dtype))
    return [filled(dense, weight=layer.kernel, bias=layer.bias)]


def _build_attention(layer: Attention, style: str) -> list[nn.Module]:
    dtype = getattr(torch, layer.dtype)
    options = {"dropout": layer.rate, "use_bias": layer.biased, "dtype": dtype}
    if isinstance(layer, WindowAttention):
        where = layer.window, layer.heads, layer.shift
        options |= {"cosine": layer.cosine, "grid": layer.grid}
        native: nn.Module = attention.WindowAttention(channels_taken(layer), *where, **options)
    else:
        channels, heads = channels_taken(layer), layer.heads
        if layer.plain:
            native = PixelAttention(channels, heads, **options)
        else:
            native = attention.HeadAttention(channels, heads, layer.key_size, layer.value_size, **options)
    return [filled(native, **arrays_of(native, layer))]


def _build_class_token(layer: ClassToken, style: str) -> list[nn.Module]:
    native = attention.ClassToken(len(layer.token), getattr(torch, layer.dtype))
    return [filled(native, **arrays_of(native, layer))]


def _build_position_embedding(layer: PositionEmbedding, style: str) -> list[nn.Module]:
    channels, rows, columns = layer.embedding.shape
    native = attention.PositionEmbedding(channels, (rows, columns), getattr(torch, layer.dtype))
    return [filled(native, **arrays_of(native, layer))]


_OF_CHANNELS = {
    "max": functions.channel_maximum,
    "average": functions.channel_average,
    "sum": functions.channel_total,
}
_BUILDERS: dict[type[Layer], Callable[[Any, str], list[Any]]] = {
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
    Upsample: _build_upsample,
    Resize: _build_resize,
    Crop: _build_crop,
    ChannelPool: lambda layer, style: [_OF_CHANNELS[layer.function]],
    Subsample: lambda layer, style: [partial(functions.subsample, start=layer.start, step=layer.step)],
    ChannelSlice: lambda layer, style: [partial(functions.channel_slice, start=layer.start, stop=layer.stop)],
    Chunk: lambda layer, style: [partial(functions.chunk, index=layer.index, count=layer.count)],
    ChannelShuffle: lambda layer, style: [nn.ChannelShuffle(layer.groups)],
    PixelShuffle: _build_pixel_shuffle,
    **across_channels.BUILDERS,
    Dropout: _build_dropout,
    Flatten: _build_flatten,
    Unflatten: _build_unflatten,
    Dense: _build_dense,
    Activation: build_activation,
    Clip: build_clip,
    Attention: _build_attention,
    WindowAttention: _build_attention,
    ClassToken: _build_class_token,
    PositionEmbedding: _build_position_embedding,
    FirstPixel: lambda layer, style: [first_pixel],
    DotProductAttention: lambda layer, style: [partial(attention.attend, heads=layer.heads, scale=layer.scale)],
    PReLU: lambda layer, style: [
        filled(nn.PReLU(len(layer.slope), dtype=getattr(torch, layer.dtype)), weight=layer.slope)
    ],
    Softmax: lambda layer, style: [nn.LogSoftmax(1) if layer.log else nn.Softmax(1)],
    Affine: lambda layer, style: [partial(affine, scale=layer.scale, shift=layer.shift)],
    Add: lambda layer, style: [add],
    Subtract: lambda layer, style: [functions.subtract],
    Multiply: lambda layer, style: [multiply],
    Divide: lambda layer, style: [functions.divide],
    Maximum: lambda layer, style: [functions.greatest],
    Minimum: lambda layer, style: [functions.least],
    Concatenate: lambda layer, style: [concatenate],
    BroadcastLike: lambda layer, style: [functions.broadcast_like],
    Outputs: lambda layer, style: [partial(functions.outputs, names=layer.names)],
    ResizeLike: _build_resize_like,
}


def arrays_of(module: nn.Module, layer: Any) -> dict[str, np.ndarray]:
    """A layer's arrays by the names and in the layout that a module has them."""
    if isinstance(layer, BatchNorm) and module.weight is None:
        return {"running_mean": layer.mean, "running_var": layer.variance}
    if isinstance(module, (RowConvolution, modules.PixelLinear)):
        arrays = _NAMES.arrays(layer)
        return {**arrays, "weight": arrays["weight"].reshape(module.weight.shape)}
    if isinstance(module, nn.LayerNorm):
        return {name: array.reshape(module.normalized_shape) for name, array in _NAMES.arrays(layer).items()}
    if not isinstance(module, Conv2D):
        return attention.arrays_of(module, layer) or _NAMES.arrays(layer)
    arrays = _NAMES.arrays(layer, module.spec.data_format)
    return {**arrays, "weight": arrays["weight"].reshape(module.weight.shape)}


def assemble(nodes: Sequence[Node], inputs: Inputs = ONE_IMAGE) -> nn.Module:
    """See `convlab.models.adapters.Models`."""
    chain = sequential(nodes) if is_sequence(nodes) else None
    return (Network(nodes, [*inputs]) if chain is None else chain).eval()
