"""The nodes of ONNX that compute each kind of layer: one entry for each in `NODES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....errors import UnsupportedError
from ...layers.across_channels import GatedLinearUnit, LocalResponseNorm, PartsSoftmax
from ...layers.activations import Activation, Affine, Clip, PReLU, Softmax
from ...layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle, PixelUnshuffle
from ...layers.dot_product import DotProductAttention
from ...layers.flattening import Flatten, Unflatten
from ...layers.folded import Convolution1D, Convolution3D
from ...layers.joining import Add, BroadcastLike, Concatenate, Divide, Maximum, Minimum, Multiply, Subtract
from ...layers.layer import LOWEST, BatchNorm, Convolution, Dense, Dropout, Layer, Pad
from ...layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from ...layers.pixels import Crop, Subsample, Upsample
from ...layers.pooling import ChannelPool, GlobalPool, Pool
from ...layers.resizing import Resize
from ...layers.spatial import Ends, around, to_first, to_last
from ...layers.tokens import Anchors, ConcatenatePixels, Tokens
from ...layers.transposed import TRANSPOSED, TransposedConvolution
from .activations import write_activation
from .graph_writer import GraphWriter
from .resizing import attributes_of
from .whole_images import write_attention, write_broadcast, write_parts_softmax

_PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
_AUTO_PAD = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}
# A slice that ends here ends where the image does.
_END = 2**31 - 1


def _pads(pads: Ends) -> list[int]:
    return [*(before for before, _ in pads), *(after for _, after in pads)]


def _padding(padding: Ends | str) -> dict[str, Any]:
    return {"auto_pad": _AUTO_PAD[padding]} if isinstance(padding, str) else {"pads": _pads(padding)}


def _convolution(graph: GraphWriter, layer: Convolution) -> None:
    spec, padding = layer.spec, layer.spec.padding
    if spec.padding_mode != "zeros" or spec.padding_value:
        if isinstance(padding, str):
            raise graph.refused(graph.number, f"padding {padding!r} of {spec.padding_mode}", "integers")
        _pad(graph, Pad.before(spec))
        padding = around((0,) * len(spec.kernel_size))
    arrays = [graph.constant(name, getattr(layer, name)) for name in layer.arrays if getattr(layer, name) is not None]
    graph.node(
        "Conv",
        *arrays,
        kernel_shape=spec.kernel_size,
        strides=spec.stride,
        dilations=spec.dilation,
        group=spec.groups,
        **_padding(padding),
    )


def _pad(graph: GraphWriter, layer: Pad) -> None:
    if layer.mode not in (*_PAD_MODES, LOWEST):
        raise UnsupportedError(f"a border of mode {layer.mode!r} isn't exported.", hint="save it as .safetensors.")
    sizes = graph.constant("pads", _pads(((0, 0), (0, 0), *layer.pads)), "int64")
    number = -np.inf if layer.mode == LOWEST else layer.value
    value = [graph.constant("value", number)] if number else []
    graph.node("Pad", sizes, *value, mode=_PAD_MODES.get(layer.mode, "constant"))


def _affine(graph: GraphWriter, layer: Affine) -> None:
    graph.node("Mul", graph.constant("scale", layer.scale))
    graph.node("Add", graph.constant("shift", layer.shift))


def _clip(graph: GraphWriter, layer: Clip) -> None:
    names = zip(("least", "most"), layer.finite_limits, strict=True)
    graph.node("Clip", *("" if limit is None else graph.constant(name, limit) for name, limit in names))


def _joined(kind: str) -> Callable[[GraphWriter, Any], None]:
    def add(graph: GraphWriter, layer: Layer) -> None:
        others = graph.others
        graph.node(kind, others[0] if others else graph.constant("one", float(kind == "Mul")))
        for other in others[1:]:
            graph.node(kind, other)

    return add


def _pool(graph: GraphWriter, layer: Pool) -> None:
    own: dict[str, Any] = {"count_include_pad": int(layer.count_padding)} if layer.function == "average" else {}
    graph.node(
        "AveragePool" if layer.function == "average" else "MaxPool",
        kernel_shape=layer.size,
        strides=layer.stride,
        ceil_mode=int(layer.ceil),
        **_padding(layer.padding),
        **own,
    )


def _global_pool(graph: GraphWriter, layer: GlobalPool) -> None:
    if layer.function == "sum":
        axes = graph.constant("axes", [*range(2, graph.rank)], "int64")
        graph.node(_REDUCTIONS[layer.function], axes, keepdims=1)
    else:
        graph.node("GlobalAveragePool" if layer.function == "average" else "GlobalMaxPool")
    if not layer.keepdims:
        _flatten(graph, Flatten())


def _channel_pool(graph: GraphWriter, layer: ChannelPool) -> None:
    axes = graph.constant("axes", [1], "int64")
    graph.node(_REDUCTIONS[layer.function], axes, keepdims=1)


_REDUCTIONS = {"max": "ReduceMax", "average": "ReduceMean", "sum": "ReduceSum"}


def _batch_norm(graph: GraphWriter, layer: BatchNorm) -> None:
    epsilon, variance = layer.epsilon, layer.variance
    if graph.dtype == "float64":  # The attribute epsilon is a float32.
        epsilon, variance = 0.0, np.asarray(variance, np.float64) + epsilon
    arrays = {"scale": layer.scale, "shift": layer.shift, "mean": layer.mean, "variance": variance}
    graph.node("BatchNormalization", *(graph.constant(*each) for each in arrays.items()), epsilon=epsilon)


def _flatten(graph: GraphWriter, layer: Flatten) -> None:
    if layer.order == "HWC" and graph.rank > 2:
        graph.node("Transpose", perm=to_last(graph.rank - 2))
    graph.node("Flatten", axis=1)
    graph.rank = 2


def _unflatten(graph: GraphWriter, layer: Unflatten) -> None:
    graph.rank = 2 + len(layer.size)
    if max(layer.size) == 1:
        graph.node("Unsqueeze", graph.constant("axes", [*range(2, graph.rank)], "int64"))
    elif layer.order == "CHW":
        graph.node("Reshape", graph.constant("shape", [0, -1, *layer.size], "int64"))
    else:
        graph.node("Reshape", graph.constant("shape", [0, *layer.size, -1], "int64"))
        graph.node("Transpose", perm=to_first(len(layer.size)))


def _dense(graph: GraphWriter, layer: Dense) -> None:
    if graph.rank != 2:
        raise graph.refused(graph.number, "images", "rows of numbers, of a flattening before it")
    arrays = [graph.constant(name, getattr(layer, name)) for name in layer.arrays if getattr(layer, name) is not None]
    graph.node("Gemm", *arrays, transB=1)


def _transposed(graph: GraphWriter, layer: TransposedConvolution) -> None:
    before, after = zip(*layer.crop, strict=True)
    more = [max(-end, 0) for end in after]
    if min(before) < 0 or any(m >= max(s, d) for m, s, d in zip(more, layer.stride, layer.dilation, strict=True)):
        raise graph.refused(graph.number, f"a crop of {layer.crop}", "fewer rows and columns to add")
    arrays = [graph.constant(name, getattr(layer, name)) for name in layer.arrays if getattr(layer, name) is not None]
    graph.node(
        "ConvTranspose",
        *arrays,
        kernel_shape=layer.kernel.shape[2:],
        strides=layer.stride,
        dilations=layer.dilation,
        group=layer.groups,
        pads=[*before, *(max(end, 0) for end in after)],
        output_padding=more,
    )


def _column(graph: GraphWriter, name: str, numbers: np.ndarray) -> str:
    """An array with a number for each channel of what comes."""
    return str(graph.constant(name, np.reshape(numbers, (-1, *(1,) * (graph.rank - 2)))))


def _channel_affine(graph: GraphWriter, layer: ChannelAffine) -> None:
    if layer.scale is not None:
        graph.node("Mul", _column(graph, "scale", layer.scale))
    if layer.shift is not None:
        graph.node("Add", _column(graph, "shift", layer.shift))


def _prelu(graph: GraphWriter, layer: PReLU) -> None:
    graph.node("PRelu", _column(graph, "slope", layer.slope))


def _group_norm(graph: GraphWriter, layer: GroupNorm) -> None:
    """An instance norm, of channels or of groups, each as one row of pixels."""
    if layer.groups == len(layer.scale) and graph.rank > 2:
        arrays = graph.constant("scale", layer.scale), graph.constant("shift", layer.shift)
        graph.node("InstanceNormalization", *arrays, epsilon=layer.epsilon)
        return
    image = graph.last
    graph.node("Shape")
    shape = graph.last
    graph.last = image
    graph.node("Reshape", graph.constant("groups", [0, layer.groups, -1], "int64"))
    ones, zeros = graph.constant("ones", np.ones(layer.groups)), graph.constant("zeros", np.zeros(layer.groups))
    graph.node("InstanceNormalization", ones, zeros, epsilon=layer.epsilon)
    graph.node("Reshape", shape)
    graph.node("Mul", _column(graph, "scale", layer.scale))
    graph.node("Add", _column(graph, "shift", layer.shift))


def _layer_norm(graph: GraphWriter, layer: LayerNorm) -> None:
    if graph.rank > 2:
        graph.node("Transpose", perm=to_last(graph.rank - 2))
    arrays = graph.constant("scale", layer.scale), graph.constant("shift", layer.shift)
    graph.node("LayerNormalization", *arrays, axis=-1, epsilon=layer.epsilon)
    if graph.rank > 2:
        graph.node("Transpose", perm=to_first(graph.rank - 2))


def _rms_norm(graph: GraphWriter, layer: RMSNorm) -> None:
    """As products and a mean: ONNX has the norm since opset 23 alone."""
    image = graph.last
    graph.node("Mul", image)
    graph.node("ReduceMean", graph.constant("axes", [1], "int64"), keepdims=1)
    graph.node("Add", graph.constant("epsilon", layer.epsilon))
    graph.node("Sqrt")
    root, graph.last = graph.last, image
    graph.node("Div", root)
    graph.node("Mul", _column(graph, "scale", layer.scale))


def _crop(graph: GraphWriter, layer: Crop) -> None:
    ends = [-end or _END for _, end in layer.pads]
    indices = {"starts": [start for start, _ in layer.pads], "ends": ends, "axes": [*range(2, graph.rank)]}
    graph.node("Slice", *(graph.constant(name, numbers, "int64") for name, numbers in indices.items()))


def _subsample(graph: GraphWriter, layer: Subsample) -> None:
    indices = {"starts": [*layer.start], "ends": [_END, _END], "axes": [2, 3], "steps": [*layer.step]}
    graph.node("Slice", *(graph.constant(name, numbers, "int64") for name, numbers in indices.items()))


def _upsample(graph: GraphWriter, layer: Upsample) -> None:
    factors = graph.constant("scales", [1.0, 1.0, *layer.factor], "float32")
    graph.node("Resize", "", factors, **attributes_of(layer))


def _resize(graph: GraphWriter, layer: Resize) -> None:
    sizes = graph.constant("sizes", [*layer.size], "int64")
    graph.node("Resize", "", "", sizes, axes=[2, 3], **attributes_of(layer))


def _channel_slice(graph: GraphWriter, layer: ChannelSlice) -> None:
    indices = {"starts": [layer.start], "ends": [layer.stop or _END], "axes": [1]}
    graph.node("Slice", *(graph.constant(name, numbers, "int64") for name, numbers in indices.items()))


def _chunk(graph: GraphWriter, layer: Chunk) -> None:
    size = layer.output_channels(graph.channels())
    start = layer.index * size
    indices = {"starts": [start], "ends": [start + size], "axes": [1]}
    graph.node("Slice", *(graph.constant(name, numbers, "int64") for name, numbers in indices.items()))


def _glu(graph: GraphWriter, layer: GatedLinearUnit) -> None:
    half, image = graph.channels() // 2, graph.last
    middle, axes = graph.constant("middle", [half], "int64"), graph.constant("axes", [1], "int64")
    graph.node("Slice", middle, graph.constant("end", [_END], "int64"), axes)
    graph.node("Sigmoid")
    gates, graph.last = graph.last, image
    graph.node("Slice", graph.constant("start", [0], "int64"), middle, axes)
    graph.node("Mul", gates)


def _channel_shuffle(graph: GraphWriter, layer: ChannelShuffle) -> None:
    order = layer.reference(np.arange(graph.channels())[None])[0]
    graph.node("Gather", graph.constant("order", order, "int64"), axis=1)


def _pixel_shuffle(graph: GraphWriter, layer: PixelShuffle) -> None:
    graph.node("DepthToSpace", blocksize=layer.factor, mode="DCR" if layer.channels_last else "CRD")


def _pixel_unshuffle(graph: GraphWriter, layer: PixelUnshuffle) -> None:
    graph.node("SpaceToDepth", blocksize=layer.factor)
    if not layer.channels_last:
        channels = layer.output_channels(graph.channels())
        order = ChannelShuffle(layer.factor**2).reference(np.arange(channels)[None])[0]
        graph.node("Gather", graph.constant("order", order, "int64"), axis=1)


def _anchors(graph: GraphWriter, layer: Anchors) -> None:
    channels = layer.output_channels(graph.channels())
    graph.node("Transpose", perm=[0, 2, 3, 1])
    graph.node("Reshape", graph.constant("shape", [0, 0, -1, channels], "int64"))
    graph.node("Transpose", perm=[0, 3, 1, 2])


def _concatenate_pixels(graph: GraphWriter, layer: ConcatenatePixels) -> None:
    shape = graph.constant("shape", [0, 0, -1], "int64")
    rows = []
    for value in [graph.last, *graph.others]:
        graph.last = value
        graph.node("Reshape", shape)
        rows.append(graph.last)
    graph.last, graph.rank = rows[0], 3
    graph.node("Concat", *rows[1:], axis=2)


def _tokens(graph: GraphWriter, layer: Tokens) -> None:
    graph.node("Reshape", graph.constant("shape", [0, 0, -1], "int64"))
    graph.node("Transpose", perm=[0, 2, 1])
    graph.rank = 3


def _local_response_norm(graph: GraphWriter, layer: LocalResponseNorm) -> None:
    if layer.size % 2 == 0:
        raise graph.refused(graph.number, f"a norm of {layer.size} channels", "an odd number")
    graph.node("LRN", size=layer.size, alpha=layer.alpha, beta=layer.beta, bias=layer.k)


# Another kind of layer is another entry.
NODES: dict[type[Layer], Callable[[GraphWriter, Any], None]] = {
    **dict.fromkeys((Convolution, Convolution1D, Convolution3D), _convolution),
    Pad: _pad,
    Activation: write_activation,
    Softmax: lambda graph, layer: graph.node("LogSoftmax" if layer.log else "Softmax", axis=1),
    Pool: _pool,
    GlobalPool: _global_pool,
    ChannelPool: _channel_pool,
    BatchNorm: _batch_norm,
    Dropout: lambda graph, layer: None,
    Flatten: _flatten,
    Unflatten: _unflatten,
    Dense: _dense,
    Affine: _affine,
    Clip: _clip,
    Add: _joined("Add"),
    Subtract: _joined("Sub"),
    Multiply: _joined("Mul"),
    Divide: _joined("Div"),
    Maximum: _joined("Max"),
    Minimum: _joined("Min"),
    Concatenate: lambda graph, layer: graph.node("Concat", *graph.others, axis=1),
    **dict.fromkeys(TRANSPOSED, _transposed),
    ChannelAffine: _channel_affine,
    PReLU: _prelu,
    GroupNorm: _group_norm,
    LayerNorm: _layer_norm,
    RMSNorm: _rms_norm,
    Crop: _crop,
    Subsample: _subsample,
    Upsample: _upsample,
    Resize: _resize,
    Chunk: _chunk,
    ChannelSlice: _channel_slice,
    ChannelShuffle: _channel_shuffle,
    PixelShuffle: _pixel_shuffle,
    PixelUnshuffle: _pixel_unshuffle,
    LocalResponseNorm: _local_response_norm,
    GatedLinearUnit: _glu,
    Anchors: _anchors,
    ConcatenatePixels: _concatenate_pixels,
    Tokens: _tokens,
    DotProductAttention: write_attention,
    BroadcastLike: write_broadcast,
    PartsSoftmax: write_parts_softmax,
}
