"""Keras's layers, built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import keras
import numpy as np
from keras import layers as kl

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
from convlab.models.layers.outputs import Outputs as OutputsLayer
from convlab.models.layers.pixels import Crop, Subsample, Upsample
from convlab.models.layers.pooling import ChannelPool, GlobalPool, Pool
from convlab.models.layers.reading import INPUT, ArrayNames
from convlab.models.layers.spatial import Ends, Spec, hwio, is_padded, padding_in, to_first, to_last, window
from convlab.models.layers.transposed import TRANSPOSED, TransposedConvolution, named_crop
from convlab.models.layers.windows import WindowAttention

from .. import attention_layers, image_layers
from ..border_layers import BorderPadding
from ..layers import LOWEST_PADDING, Conv2D
from ..transposed_layers import GROUPED
from . import across_channels, pooling, resizing
from .activations import build_activation, build_clip, build_softmax
from .attention import build_attention
from .depth import deep_enough
from .inputs import GLOBAL, image_shape, symbol
from .outputs import Outputs
from .readers import DEPTHWISE, RMS_NORMS, SEPARABLE, each_rank

_NAMES = ArrayNames(
    "moving_mean", "moving_variance", "gamma", "beta", kernel="kernel", slope="alpha", channels_last=True
)
_OURS = 'layers="convlab" has it.'


def build(layer: Layer, style: str) -> list[kl.Layer]:
    """See `convlab.models.adapters.Models`."""
    return _BUILDERS[type(layer)](layer, style)


_KERNEL_INITIALIZERS = ("kernel_initializer", "depthwise_initializer")


def _filled(layer: kl.Layer, shape: Sequence[int | None], *arrays: np.ndarray | None) -> kl.Layer:
    # Random numbers would be made for nothing, and a large kernel's take twice its memory besides.
    initializers = {name: getattr(layer, name) for name in _KERNEL_INITIALIZERS if hasattr(layer, name)}
    for name in initializers:
        setattr(layer, name, lambda shape, dtype: keras.ops.convert_to_tensor(arrays[0], dtype))
    layer.build(tuple(shape))
    for name, initializer in initializers.items():
        setattr(layer, name, initializer)
    given = [array for array in arrays if array is not None]
    done = 1 if initializers else 0
    for variable, array in zip(layer.weights[done:], given[done:], strict=True):
        variable.assign(array)
    return layer


def _build_convolution(layer: Convolution, style: str) -> list[kl.Layer]:
    spec, rank = layer.spec, len(layer.spec.kernel_size)
    shape = _shape(rank, spec.in_channels)
    if style == "convlab":
        options, weight = layer.ours_for("NHWC")
        return [_filled(Conv2D(**options), shape, weight, layer.bias)]
    if max(spec.stride) > 1 and max(spec.dilation) > 1:
        raise UnsupportedError(f"Keras has no stride {spec.stride} with dilation {spec.dilation}.", hint=_OURS)
    padding, before = _padding(spec)
    options = {"strides": spec.stride, "padding": padding, "dilation_rate": spec.dilation}
    options |= {"use_bias": spec.use_bias, "data_format": "channels_last", "dtype": spec.dtype}
    if layer.depthwise and rank < 3 and len({*spec.stride}) == 1:
        kernel = _by_channel(layer)
        conv = DEPTHWISE[rank - 1](spec.kernel_size, depth_multiplier=kernel.shape[-1], **options)
    else:
        kernel = hwio(layer.kernel)
        conv = each_rank("Conv")[rank - 1](spec.out_channels, spec.kernel_size, groups=spec.groups, **options)
    return [*before, _filled(conv, shape, kernel, layer.bias)]


def _shape(rank: int, channels: int | None) -> tuple[int | None, ...]:
    """The shape of images of so many axes."""
    return (None, *(None,) * rank, channels)


def _padding(spec: Spec) -> tuple[str, list[kl.Layer]]:
    """Keras's padding of a convolution, and what pads before it."""
    enough = 2 * max(spec.kernel_size) * max(spec.dilation) + 1
    pads = padding_in(spec, (enough,) * len(spec.kernel_size))
    if max(spec.kernel_size) == 1 and isinstance(spec.padding, str):
        return "valid", []
    if (spec.padding_mode != "zeros" or spec.padding_value) and is_padded(pads):
        if isinstance(spec.padding, str) and max(spec.stride) > 1:
            raise UnsupportedError(f"Keras has no border {spec.padding_mode} that depends on the size.", hint=_OURS)
        return "valid", _build_pad(Pad(pads, spec.padding_mode, spec.padding_value), "builtin")
    if spec.padding == "same":
        return "same", []
    if spec.padding == "same_lower" and max(spec.stride) > 1:
        raise UnsupportedError(f"Keras has no padding same_lower with stride {spec.stride}.", hint=_OURS)
    name = _name(spec, pads)
    return ("valid", _build_pad(Pad(pads), "builtin")) if name is None else (name, [])


def _name(spec: Spec, pads: Ends) -> str | None:
    """Keras's name for the padding of a convolution or a window, if it has one."""
    if not is_padded(pads):
        return "valid"
    ones = (1,) * len(pads)
    return "same" if spec.stride == ones and padding_in(replace(spec, padding="same"), ones) == pads else None


def _build_pad(layer: Pad, style: str) -> list[kl.Layer]:
    if layer.mode == LOWEST:
        return [LOWEST_PADDING[len(layer.pads) - 1](layer.pads, autocast=False)]
    if (layer.mode != "zeros" or layer.value) and is_padded(layer.pads):
        return [BorderPadding(layer.pads, layer.mode, layer.value, autocast=False)]
    return [_of_pads("ZeroPadding", layer.pads)]


def _of_pads(name: str, pads: Ends) -> kl.Layer:
    """A layer that has a pair for each axis, or for a single axis the pair alone."""
    kind = each_rank(name)[len(pads) - 1]
    if len(pads) == 1:
        return kind(pads[0], autocast=False)
    return kind(pads, data_format="channels_last", autocast=False)


def _build_pool(layer: Pool, style: str) -> list[kl.Layer]:
    spec = window(layer.size, stride=layer.stride)
    counted = layer.count_padding and is_padded(layer.padding) and layer.function == "average"
    means = layer.function == "average" and not counted
    if layer.ceil:
        if not means or layer.whole_padding is None:
            raise UnsupportedError("Keras's pooling has no windows beyond the edge (ceil).")
        return pooling.padded_average(layer)
    if isinstance(layer.padding, str):
        padding, before = layer.padding, []
        if counted and padding == "same":
            return pooling.padded_average(layer)
        if counted or padding not in ("valid", "same"):
            raise UnsupportedError(f"Keras's pooling has no padding {padding!r} like this.")
    elif counted:
        padding, before = "valid", _build_pad(Pad(layer.padding), style)
    elif (name := _name(spec, layer.padding)) is not None:
        padding, before = name, []
    elif means:
        return pooling.padded_average(layer)
    else:
        raise UnsupportedError(f"Keras's pooling has no padding {layer.padding}.", hint="pad before it.")
    kind = each_rank("MaxPooling" if layer.function == "max" else "AveragePooling")[len(layer.size) - 1]
    return [*before, kind(layer.size, layer.stride, padding, data_format="channels_last", autocast=False)]


def _build_global_pool(layer: GlobalPool, style: str) -> list[kl.Layer]:
    if layer.function == "sum":
        return [image_layers.GlobalSum(layer.keepdims, layer.rank, autocast=False)]
    kind = each_rank("GlobalMaxPooling" if layer.function == "max" else "GlobalAveragePooling")[layer.rank - 1]
    return [kind(data_format="channels_last", keepdims=layer.keepdims, autocast=False)]


def _build_batch_norm(layer: BatchNorm, style: str) -> list[kl.Layer]:
    norm = kl.BatchNormalization(-1, layer.momentum, layer.epsilon, dtype=layer.dtype)
    arrays = layer.scale, layer.shift, layer.mean, layer.variance
    return [_filled(norm, _shape(layer.rank, len(layer.mean)), *arrays)]


def _build_group_norm(layer: GroupNorm, style: str) -> list[kl.Layer]:
    norm = kl.GroupNormalization(layer.groups, -1, layer.epsilon, dtype=layer.dtype)
    return [_filled(norm, _shape(layer.rank, len(layer.scale)), layer.scale, layer.shift)]


def _build_layer_norm(layer: LayerNorm, style: str) -> list[kl.Layer]:
    norm = kl.LayerNormalization(-1, layer.epsilon, dtype=layer.dtype)
    return [_filled(norm, _shape(layer.rank, len(layer.scale)), layer.scale, layer.shift)]


def _build_rms_norm(layer: RMSNorm, style: str) -> list[kl.Layer]:
    if not RMS_NORMS:
        raise UnsupportedError("This version of Keras has no RMSNormalization.", hint="a newer one has it.")
    norm = kl.RMSNormalization(-1, layer.epsilon, dtype=layer.dtype)
    return [_filled(norm, _shape(layer.rank, len(layer.scale)), layer.scale)]


def _build_channel_affine(layer: ChannelAffine, style: str) -> list[kl.Layer]:
    if not layer.trained:
        scale, shift = 1.0 if layer.scale is None else layer.scale, 0.0 if layer.shift is None else layer.shift
        return [kl.Rescaling(np.asarray(scale).tolist(), np.asarray(shift).tolist(), dtype=layer.dtype)]
    has, shared = (layer.scale is not None, layer.shift is not None), layer.count == 1
    affine = image_layers.ChannelAffine(*has, shared, dtype=layer.dtype)
    return [_filled(affine, _shape(layer.rank, None if shared else layer.count), layer.scale, layer.shift)]


def _build_transposed(layer: TransposedConvolution, style: str) -> list[kl.Layer]:
    if max(layer.dilation) > 1:
        raise UnsupportedError("TensorFlow has transposed convolutions with dilation on some processors alone.")
    names = ("valid", "same")
    padding = next((name for name in names if named_crop(name, layer.extent, layer.stride) == layer.crop), None)
    if padding is None:
        raise UnsupportedError(f"Keras has no transposed convolution whose result is cropped by {layer.crop}.")
    rank = len(layer.stride)
    kinds, groups = each_rank("Conv", "Transpose"), {"groups": layer.groups} if layer.groups > 1 else {}
    conv = (GROUPED if groups else kinds)[rank - 1](
        layer.output_channels(),
        layer.kernel.shape[2:],
        layer.stride,
        padding,
        **groups,
        data_format="channels_last",
        use_bias=layer.bias is not None,
        dtype=layer.dtype,
    )
    return [_filled(conv, _shape(rank, len(layer.kernel)), hwio(layer.kernel), layer.bias)]


def _build_class_token(layer: ClassToken, style: str) -> list[kl.Layer]:
    native = attention_layers.ClassToken(dtype=layer.dtype)
    return [_filled(native, (None, None, None, len(layer.token)), layer.token)]


def _build_position_embedding(layer: PositionEmbedding, style: str) -> list[kl.Layer]:
    embedding = layer.embedding.transpose(1, 2, 0)
    native = attention_layers.PositionEmbedding(embedding.shape[:2], dtype=layer.dtype)
    return [_filled(native, (None, None, None, embedding.shape[2]), embedding)]


def _build_upsample(layer: Upsample, style: str) -> list[kl.Layer]:
    rank = len(layer.factor)
    if layer.method == "bilinear" and (rank != 2 or layer.align_corners):
        return [image_layers.LinearUpSampling(layer.factor, layer.align_corners, rank, autocast=False)]
    if rank == 2:
        return [kl.UpSampling2D(layer.factor, "channels_last", layer.method, autocast=False)]
    return [kl.UpSampling1D(*layer.factor) if rank == 1 else kl.UpSampling3D(layer.factor, "channels_last")]


def _build_flatten(layer: Flatten, style: str) -> list[kl.Layer]:
    flatten = kl.Flatten(data_format="channels_last", autocast=False)
    return [flatten] if layer.order == "HWC" else [kl.Permute(to_first(layer.rank)[1:], autocast=False), flatten]


def _build_dense(layer: Dense, style: str) -> list[kl.Layer]:
    outputs, inputs = layer.kernel.shape
    dense = kl.Dense(outputs, use_bias=layer.bias is not None, dtype=layer.dtype)
    return [_filled(dense, (None, inputs), layer.kernel.T, layer.bias)]


def _build_prelu(layer: PReLU, style: str) -> list[kl.Layer]:
    channels, axes = len(layer.slope), [*range(1, layer.rank + 2)]
    shared, shape = (axes[:-1], channels) if channels > 1 else (axes, None)
    prelu = kl.PReLU(shared_axes=shared, dtype=layer.dtype)
    return [_filled(prelu, _shape(layer.rank, shape), layer.slope.reshape(*(1,) * layer.rank, -1))]


def _build_dropout(layer: Dropout, style: str) -> list[kl.Layer]:
    if layer.channels:
        return [each_rank("SpatialDropout")[layer.rank - 1](layer.rate)]
    # The noise_shape of a dropout of whole images.
    images = (None, *(1,) * (layer.rank + 1))
    return [kl.Dropout(layer.rate, images if layer.images else None, autocast=False)]


def _build_unflatten(layer: Unflatten, style: str) -> list[kl.Layer]:
    if max(layer.size) == 1 or layer.order == "HWC":
        return [kl.Reshape((*layer.size, -1), autocast=False)]
    order = to_last(len(layer.size))[1:]
    return [kl.Reshape((-1, *layer.size), autocast=False), kl.Permute(order, autocast=False)]


# Without autocast a layer that has no numbers of its own computes in the dtype of what it gets.
_BUILDERS: dict[type[Layer], Callable[[Any, str], list[kl.Layer]]] = {
    **dict.fromkeys((Convolution, Convolution1D, Convolution3D), _build_convolution),
    Pad: _build_pad,
    Pool: _build_pool,
    GlobalPool: _build_global_pool,
    **dict.fromkeys(TRANSPOSED, _build_transposed),
    BatchNorm: _build_batch_norm,
    GroupNorm: _build_group_norm,
    LayerNorm: _build_layer_norm,
    RMSNorm: _build_rms_norm,
    ChannelAffine: _build_channel_affine,
    Upsample: _build_upsample,
    Attention: build_attention,
    WindowAttention: build_attention,
    ClassToken: _build_class_token,
    PositionEmbedding: _build_position_embedding,
    FirstPixel: lambda layer, style: [attention_layers.FirstPixel(autocast=False)],
    DotProductAttention: lambda layer, style: [
        attention_layers.DotProductAttention(layer.heads, layer.scale, autocast=False)
    ],
    ChannelPool: lambda layer, style: [image_layers.ChannelPool(layer.function, autocast=False)],
    Subsample: lambda layer, style: [image_layers.Subsample(layer.start, layer.step, autocast=False)],
    ChannelSlice: lambda layer, style: [image_layers.ChannelSlice(layer.start, layer.stop, autocast=False)],
    Chunk: lambda layer, style: [image_layers.Chunk(layer.index, layer.count, autocast=False)],
    ChannelShuffle: lambda layer, style: [image_layers.ChannelShuffle(layer.groups, autocast=False)],
    PixelShuffle: lambda layer, style: [image_layers.PixelShuffle(layer.factor, layer.channels_last, autocast=False)],
    Crop: lambda layer, style: [_of_pads("Cropping", layer.pads)],
    Dropout: _build_dropout,
    Unflatten: _build_unflatten,
    Flatten: _build_flatten,
    Dense: _build_dense,
    Activation: build_activation,
    Clip: build_clip,
    Softmax: build_softmax,
    PReLU: _build_prelu,
    Affine: lambda layer, style: [kl.Rescaling(layer.scale, layer.shift, autocast=False)],
    Add: lambda layer, style: [kl.Add(autocast=False)],
    Subtract: lambda layer, style: [kl.Subtract(autocast=False)],
    Multiply: lambda layer, style: [kl.Multiply(autocast=False)],
    Divide: lambda layer, style: [image_layers.Divide(autocast=False)],
    Maximum: lambda layer, style: [kl.Maximum(autocast=False)],
    Minimum: lambda layer, style: [kl.Minimum(autocast=False)],
    Concatenate: lambda layer, style: [kl.Concatenate(-1, autocast=False)],
    BroadcastLike: lambda layer, style: [image_layers.BroadcastLike(autocast=False)],
    OutputsLayer: lambda layer, style: [Outputs(layer.names)],
    **resizing.BUILDERS,
    **pooling.BUILDERS,
    **across_channels.BUILDERS,
}


def assemble(nodes: Sequence[Node], inputs: Inputs = ONE_IMAGE) -> keras.Model:
    """See `convlab.models.adapters.Models`."""
    natives, names = {node.native: node.name for node in nodes}, set[str]()
    dtype = next((native.dtype_policy.name for native in natives if native.weights), None)
    for native, wanted in natives.items():
        native.name = next(free for n in count() if (free := f"{wanted}_{n}" if n else wanted) not in names)
        names.add(native.name)
        if dtype and not native.weights:
            native.dtype_policy = dtype
    if len(inputs) > 1:
        symbols = {value: symbol(value, shape, dtype, names) for value, shape in inputs.items()}
        return _functional(nodes, symbols)
    shape = image_shape(nodes)
    if not is_sequence(nodes):
        axes = next((native.input_spec.ndim for native in natives if isinstance(native, _OF_RANK)), 4)
        return _functional(nodes, {INPUT: keras.Input(shape or (None,) * (axes - 1), dtype=dtype)})
    if shape is None:
        model = keras.Sequential([*natives])
        model.built = True  # none of the layers has weights to build
        return model
    return keras.Sequential([keras.Input(shape, dtype=dtype), *natives])


def _functional(nodes: Sequence[Node], symbols: Mapping[str, Any]) -> keras.Model:
    """A functional model of symbolic tensors, whose layers are called as the nodes say."""
    values = dict(symbols)
    for _, native, inputs, value in nodes:
        given = [values[name] for name in inputs]
        # Several results are the model's own, and no layer's.
        called = native.call if isinstance(native, Outputs) else native
        values[value] = x = called(given if len(given) > 1 else given[0])
    with deep_enough(len(nodes)):
        return keras.Model([*symbols.values()] if len(symbols) > 1 else symbols[INPUT], x)


_OF_RANK = (*GLOBAL, *each_rank("MaxPooling"), *each_rank("AveragePooling"), *each_rank("ZeroPadding"))


def arrays_of(native: kl.Layer, layer: Any) -> dict[str, np.ndarray]:
    """A layer's arrays by the names and in the layout that a Keras layer has them."""
    if isinstance(layer, ClassToken):
        return {"token": layer.token}
    if isinstance(layer, RMSNorm):
        return {"scale": layer.scale}
    if isinstance(layer, PositionEmbedding):
        return {"embedding": layer.embedding.transpose(1, 2, 0)}
    if not isinstance(native, Conv2D):
        arrays = _NAMES.arrays(layer)
        half = isinstance(native, SEPARABLE) and layer.depthwise
        by_channel = half or isinstance(native, DEPTHWISE)
        return {**arrays, "kernel": _by_channel(layer)} if by_channel else arrays
    arrays = _NAMES.arrays(layer, native.spec.data_format)
    return {**arrays, "weight": arrays["weight"].reshape(native.weight.shape)}


def _by_channel(layer: Convolution) -> np.ndarray:
    """A depthwise kernel as Keras has it, (h, w, channels, outputs of each)."""
    kernel = layer.kernel.reshape(layer.spec.groups, -1, *layer.spec.kernel_size)
    return np.moveaxis(kernel, (0, 1), (-2, -1))
