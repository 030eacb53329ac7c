"""Gluon's layers, read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convlab.errors import UnsupportedError
from convlab.models.adapters import free_name
from convlab.models.layers.activations import Activation, Affine, PReLU, clip
from convlab.models.layers.activations import Softmax as SoftmaxLayer
from convlab.models.layers.attention import Attention, ClassToken, FirstPixel, PositionEmbedding
from convlab.models.layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle
from convlab.models.layers.dot_product import DotProductAttention
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.folded import convolution
from convlab.models.layers.joining import Add, BroadcastLike, Concatenate, Divide, Maximum, Minimum, Multiply, Subtract
from convlab.models.layers.layer import LOWEST, BatchNorm, Convolution, Dense, Layer, Pad
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from convlab.models.layers.outputs import Outputs
from convlab.models.layers.pixels import Crop, Subsample, Upsample
from convlab.models.layers.pooling import AdaptivePool, ChannelPool, GlobalPool, Pool
from convlab.models.layers.reading import Model, Part, known, loose_array, loose_code, replaces, unbuilt, walk
from convlab.models.layers.resizing import Resize, ResizeLike
from convlab.models.layers.shapes import gives_rows
from convlab.models.layers.spatial import around, is_padded
from convlab.models.layers.transposed import transposed_convolution
from convlab.models.layers.windows import WindowAttention

from .. import attention_blocks, blocks, channel_blocks, image_blocks, private
from ..blocks import HybridSequential, ReLU6, Softmax
from ..layers import Conv2D
from ..ops import mx, ops
from . import across_channels
from .graph import graph_of
from .options import ACTIVATIONS, LAYOUTS, MODES, Block, dropout, rounds_alike, value_of

nn = mx.gluon.nn


def read(model: Block, inputs: Any = None) -> Model:
    """See `convlab.models.adapters.Models`."""
    if type(model) is blocks.Network:
        return Model("mxnet", [*_of_network(model)], True, model, inputs=dict.fromkeys(model.inputs))
    parts, with_code = walk(model, _inside, _parts, _is_chain, ".")
    why = ""
    if with_code or isinstance(model, mx.gluon.SymbolBlock):
        try:
            graph, taken = graph_of(model, lambda block, path: [*_parts(block, path)], inputs)
            return Model("mxnet", graph, True, model, inputs=dict.fromkeys(taken))
        except UnsupportedError as error:
            why = str(error).rstrip(".")
    loose = _loose(model, parts, with_code, why)
    if not with_code and _is_chain(model):
        parts = list(_flattened(parts))
    return Model("mxnet", parts, not with_code, model, loose=loose)


def _of_network(network: blocks.Network) -> Iterator[Part]:
    for name, native, inputs, value in network.nodes():
        part = next(_parts(native, free_name(name, blocks.Network)))
        if isinstance(part.layer, Dense) and private.option(native, "flatten"):
            yield Part(part.path, nn.Flatten(), Flatten("CHW"), "Dense: it flattens", inputs, f"{value}.flatten")
            inputs = (f"{value}.flatten",)
        yield replace(part, inputs=inputs, value=value, name=name)


def _inside(block: Block) -> list[tuple[str, Block]]:
    """The blocks inside a container, by name."""
    return [] if isinstance(block, tuple(_READERS)) else list(private.children(block).items())


def _loose(model: Block, parts: Sequence[Part], with_code: Mapping[str, Block], why: str) -> dict[str, str]:
    """Parameters and operations that belong to no known layer."""
    inside = [part.native.collect_params().values() for part in parts if part.layer is not None]
    known_parameters = {id(parameter) for parameters in inside for parameter in parameters}
    loose = {
        name: loose_array("parameter", parameter.shape or ())
        for name, parameter in private.all_parameters(model).items()
        if id(parameter) not in known_parameters
    }
    for path, block in with_code.items():
        method = "hybrid_forward" if isinstance(block, mx.gluon.HybridBlock) else "forward"
        told = [why] if why and path == next(iter(with_code)) else []
        loose[f"{path}.{method}()".lstrip(".")] = loose_code(block, method, told)
    return loose


def _is_chain(block: Block) -> bool:
    if isinstance(block, nn.HybridSequential):
        return not any(replaces(block, nn.HybridSequential, method) for method in _METHODS)
    return isinstance(block, nn.Sequential) and not replaces(block, nn.Sequential, "forward")


def _parts(block: Block, path: str) -> Iterator[Part]:
    """The part that a block is, or two if there is an activation inside; none for a block that does nothing."""
    if type(block) in (mx.gluon.contrib.nn.Identity, nn.Sequential, nn.HybridSequential, HybridSequential):
        return
    if isinstance(block, tuple(_READERS)) and not all(map(_has_values, private.parameters(block).values())):
        raise unbuilt(path, block, "initialise it and call it once")
    layer, note = _read(block)
    activation = getattr(block, "act", None)
    if layer is None or activation is None:
        yield Part(path, block, layer, note)
        return
    yield Part(path, private.without_activation(block), layer, note)
    yield Part(path, activation, *_read(activation))


def _has_values(parameter: Any) -> bool:
    try:
        parameter.list_data()
    except (RuntimeError, mx.gluon.parameter.DeferredInitializationError):
        return False
    return True


def _flattened(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts of a chain, with one that flattens before each Dense that flattens images."""
    images: bool | None = None
    for part in parts:
        flattens = isinstance(part.layer, Dense) and private.option(part.native, "flatten")
        if flattens and images is not False:
            yield Part(part.path, nn.Flatten(), Flatten("CHW"), "Dense: it flattens")
        if isinstance(part.layer, Dense) and not flattens and images:
            yield Part(part.path, part.native, None, "Dense: it is applied to each row of pixels")
        else:
            yield part
        if gives_rows(part.layer) or isinstance(part.layer, (Dense, Flatten)):
            images = False
        elif isinstance(part.layer, (Convolution, Pool, GlobalPool, Pad)):
            images = True


_METHODS = ("hybrid_forward", "forward")


def _read(block: Block) -> tuple[Layer | None, str]:
    layout = private.operator_options(block).get("layout", "NCHW")
    if isinstance(block, tuple(_READERS)) and layout not in LAYOUTS.values():
        return None, f"{type(block).__name__}: its layout is {layout}"
    return known(block, _READERS, *_METHODS)


def _array(parameter: Any) -> np.ndarray | None:
    return None if parameter is None else ops.to_numpy(value_of(parameter))


def _dtype(parameter: Any) -> str:
    return str(np.dtype(parameter.dtype).name)


def _convolution(m: Any) -> Layer:
    options = private.operator_options(m)
    return convolution(
        ops.to_numpy(value_of(m.weight)),
        _array(m.bias),
        _dtype(m.weight),
        options["num_group"],
        stride=tuple(options["stride"]),
        padding=around(options["pad"]),
        dilation=tuple(options["dilate"]),
    )


def _ours(m: Conv2D) -> Layer:
    return Convolution.ours(m.spec, ops.to_numpy(value_of(m.weight)), _array(m.bias), _dtype(m.weight))


def _batch_norm(m: Any) -> Layer:
    options = private.operator_options(m)
    if options["axis"] != 1:
        raise UnsupportedError(f"it normalises axis {options['axis']}, which isn't that of the channels")
    mean, variance, scale, shift = (
        ops.to_numpy(value_of(parameter)) for parameter in (m.running_mean, m.running_var, m.gamma, m.beta)
    )
    scale = np.ones_like(scale) if options["fix_gamma"] else scale
    return BatchNorm(mean, variance, scale, shift, options["eps"], options["momentum"], _dtype(m.running_mean))


def _transposed(m: Any) -> Layer:
    options = private.operator_options(m)
    pads = zip(options["pad"], options.get("adj", (0,) * len(options["pad"])), strict=True)
    crop = tuple((before, before - more) for before, more in pads)
    geometry = tuple(options["stride"]), crop, tuple(options["dilate"]), options["num_group"]
    return transposed_convolution(ops.to_numpy(value_of(m.weight)), _array(m.bias), *geometry, _dtype(m.weight))


def _layer_norm(m: Any) -> Layer:
    if private.option(m, "axis") != 1:
        raise UnsupportedError(f"it normalises axis {private.option(m, 'axis')}, which isn't that of the channels")
    epsilon, dtype = private.option(m, "epsilon"), _dtype(m.gamma)
    return LayerNorm(*_scale_and_shift(m), _single(epsilon) if dtype == "float64" else epsilon, dtype)


def _instance_norm(m: Any) -> Layer:
    if private.option(m, "axis") != 1:
        raise UnsupportedError(f"it normalises axis {private.option(m, 'axis')}, which isn't that of the channels")
    scale, shift = _scale_and_shift(m)
    return GroupNorm(scale, shift, len(scale), private.option(m, "epsilon"), _dtype(m.gamma))


def _scale_and_shift(m: Any) -> tuple[np.ndarray, np.ndarray]:
    return ops.to_numpy(value_of(m.gamma)), ops.to_numpy(value_of(m.beta))


def _channel_affine(m: Any) -> Layer:
    parameters = private.parameters(m)
    scale, shift = (_array(parameters.get(name)) for name in ("gamma", "beta"))
    return ChannelAffine(scale, shift, m.trained, _dtype(next(iter(parameters.values()))))


def _pool(function: str) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        options = private.operator_options(m)
        padding, ceil = around(options["pad"]), options["pooling_convention"] == "full"
        counted = options.get("count_include_pad", False) and is_padded(padding)
        layer = Pool(function, tuple(options["kernel"]), tuple(options["stride"]), padding, counted, ceil)
        if ceil and not rounds_alike(layer):
            raise UnsupportedError("with its ceil_mode, windows may begin beyond the image")
        return layer

    return read


def _global_pool(function: str) -> Callable[[Any], Layer]:
    return lambda m: GlobalPool(function, rank=len(private.operator_options(m)["kernel"]))


def _activation(m: Any) -> Layer:
    function = private.option(m, "act_type")
    if function not in ACTIVATIONS:
        raise UnsupportedError(f"convlab doesn't know the function {function}")
    return Activation(ACTIVATIONS[function])


def _swish(m: Any) -> Layer:
    beta = private.option(m, "beta")
    if beta != 1:
        raise UnsupportedError(f"only MXNet has a swish with beta {beta}")
    return Activation("silu")


def _pixel_shuffle(m: Any) -> Layer:
    down, across = private.option(m, "factors")
    if down != across:
        raise UnsupportedError(f"it makes {down}x{across} pixels of one, expected as many rows as columns")
    return PixelShuffle(down)


def _dropout(m: Any) -> Layer:
    return dropout(private.option(m, "rate"), private.option(m, "axes"))


def _attention(m: attention_blocks.PixelAttention) -> Layer:
    return Attention(**_dense_of_attention(m))


def _windows(m: attention_blocks.WindowAttention) -> Layer:
    table = ops.to_numpy(value_of(m.table))
    dense = {**_dense_of_attention(m), "scale": ops.to_numpy(value_of(m.scale)) if m.cosine else None}
    return WindowAttention(**dense, table=table, window=m.window, shift=m.shift, size=m.size, grid=m.grid)


def _dense_of_attention(m: attention_blocks.PixelAttention) -> dict[str, Any]:
    names = {"kernel": "qkv_weight", "out_kernel": "out_weight"}
    names |= {"bias": "qkv_bias", "out_bias": "out_bias"} if m.use_bias else {}
    arrays = {name: ops.to_numpy(value_of(getattr(m, theirs))) for name, theirs in names.items()}
    return {**arrays, "heads": m.heads, "rate": m.rate, "dtype": _dtype(m.qkv_weight)}


def _position_embedding(m: attention_blocks.PositionEmbedding) -> Layer:
    return PositionEmbedding(ops.to_numpy(value_of(m.embedding)), _dtype(m.embedding))


def _reflection(m: Any) -> Layer:
    *_, top, bottom, left, right = private.option(m, "padding")
    return Pad(((top, bottom), (left, right)), "reflect")


def _border(m: blocks.Border) -> Layer:
    if m.value == -math.inf:
        return Pad(m.pads, LOWEST)
    return Pad(m.pads, next(mode for mode, name in MODES.items() if name == m.mode), m.value)


_READERS: dict[type, Callable[[Any], Layer]] = {
    Conv2D: _ours,
    **dict.fromkeys((nn.Conv1D, nn.Conv2D, nn.Conv3D), _convolution),
    **dict.fromkeys((nn.Conv1DTranspose, nn.Conv2DTranspose, nn.Conv3DTranspose), _transposed),
    nn.BatchNorm: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.InstanceNorm: _instance_norm,
    image_blocks.GroupNorm: lambda m: GroupNorm(*_scale_and_shift(m), m.groups, m.epsilon, _dtype(m.gamma)),
    image_blocks.RMSNorm: lambda m: RMSNorm(ops.to_numpy(value_of(m.gamma)), m.epsilon, _dtype(m.gamma)),
    image_blocks.ChannelAffine: _channel_affine,
    image_blocks.Crop: lambda m: Crop(m.pads),
    image_blocks.ChannelPool: lambda m: ChannelPool(m.function),
    image_blocks.AdaptiveAveragePool: lambda m: AdaptivePool("average", m.size),
    image_blocks.GlobalSum: lambda m: GlobalPool("sum", rank=m.rank),
    image_blocks.Subsample: lambda m: Subsample(m.start, m.step),
    image_blocks.Upsample: lambda m: Upsample(m.factor, m.method, m.align_corners),
    image_blocks.Resize: lambda m: Resize(m.size, "bilinear", m.align_corners),
    image_blocks.ResizeLike: lambda m: ResizeLike("bilinear", m.align_corners),
    **across_channels.READERS,
    image_blocks.ChannelSlice: lambda m: ChannelSlice(m.start, m.stop),
    image_blocks.Chunk: lambda m: Chunk(m.index, m.count),
    image_blocks.ChannelShuffle: lambda m: ChannelShuffle(m.groups),
    image_blocks.PixelShuffle: lambda m: PixelShuffle(m.factor, m.channels_last),
    mx.gluon.contrib.nn.PixelShuffle2D: _pixel_shuffle,
    **dict.fromkeys((nn.MaxPool1D, nn.MaxPool2D, nn.MaxPool3D), _pool("max")),
    **dict.fromkeys((nn.AvgPool1D, nn.AvgPool2D, nn.AvgPool3D), _pool("average")),
    **dict.fromkeys((nn.GlobalMaxPool1D, nn.GlobalMaxPool2D, nn.GlobalMaxPool3D), _global_pool("max")),
    **dict.fromkeys((nn.GlobalAvgPool1D, nn.GlobalAvgPool2D, nn.GlobalAvgPool3D), _global_pool("average")),
    nn.Flatten: lambda m: Flatten("CHW"),
    image_blocks.FlattenPixels: lambda m: Flatten("HWC"),
    nn.Dense: lambda m: Dense(ops.to_numpy(value_of(m.weight)), _array(m.bias), _dtype(m.weight)),
    nn.Dropout: _dropout,
    nn.ReflectionPad2D: _reflection,
    blocks.Border: _border,
    nn.Activation: _activation,
    ReLU6: lambda m: Activation("relu6"),
    Softmax: lambda m: SoftmaxLayer(m.log),
    mx.gluon.model_zoo.vision.mobilenet.RELU6: lambda m: Activation("relu6"),
    nn.LeakyReLU: lambda m: Activation("leaky_relu", _single(private.option(m, "alpha"))),
    nn.PReLU: lambda m: PReLU(ops.to_numpy(value_of(m.alpha)), _dtype(m.alpha)),
    nn.ELU: lambda m: Activation("elu", _single(private.option(m, "alpha"))),
    nn.GELU: lambda m: Activation("gelu"),
    nn.Swish: _swish,
    nn.SELU: lambda m: Activation("selu"),
    blocks.HardSigmoid: lambda m: Activation("hard_swish" if m.times_x else "hard_sigmoid"),
    blocks.Elementwise: lambda m: Activation(m.function, m.parameter),
    blocks.Clip: lambda m: clip(m.least, m.most),
    blocks.Mish: lambda m: Activation("mish"),
    blocks.Unflatten: lambda m: Unflatten(m.size, m.order),
    blocks.Affine: lambda m: Affine(m.scale, m.shift),
    blocks.Add: lambda m: Add(),
    blocks.Subtract: lambda m: Subtract(),
    blocks.Multiply: lambda m: Multiply(),
    blocks.Divide: lambda m: Divide(),
    channel_blocks.Maximum: lambda m: Maximum(),
    channel_blocks.Minimum: lambda m: Minimum(),
    blocks.Concatenate: lambda m: Concatenate(),
    blocks.BroadcastLike: lambda m: BroadcastLike(rank=m.rank),
    blocks.Outputs: lambda m: Outputs(m.names),
    attention_blocks.WindowAttention: _windows,
    attention_blocks.PixelAttention: _attention,
    attention_blocks.ClassToken: lambda m: ClassToken(ops.to_numpy(value_of(m.token)), _dtype(m.token)),
    attention_blocks.PositionEmbedding: _position_embedding,
    attention_blocks.FirstPixel: lambda m: FirstPixel(),
    attention_blocks.DotProductAttention: lambda m: DotProductAttention(m.heads, m.scale),
}


def _single(number: float) -> float:
    return float(np.float32(number))  # MXNet holds it in float32, whatever the dtype
