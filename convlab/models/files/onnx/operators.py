"""ONNX's operators and the layers that they are: one entry for each in `OPERATORS`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....errors import UnsupportedError
from ...layers.across_channels import LocalResponseNorm
from ...layers.activations import Softmax
from ...layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle, PixelUnshuffle
from ...layers.flattening import Flatten
from ...layers.folded import convolution
from ...layers.joining import Concatenate
from ...layers.layer import LOWEST, BatchNorm, Dense, Dropout, Layer, Pad
from ...layers.norms import GroupNorm, LayerNorm, RMSNorm
from ...layers.pixels import Crop, Subsample
from ...layers.pooling import ChannelPool, GlobalPool, Pool
from ...layers.spatial import Ends
from ...layers.tokens import ConcatenatePixels
from ...layers.transposed import transposed_convolution
from ..fields import LARGEST, excerpt
from .arithmetic import ARITHMETIC
from .operation import FIRST, GROUPS, IMAGES, INNER, LAST, LAYOUTS, ROWS, Operation, Reader, Value
from .resizing import resize


def _padding(op: Operation) -> Ends | str:
    count = 2 * op.rank
    names = {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}
    auto, pads = op.options.get("auto_pad", "NOTSET"), op.options.get("pads", [0] * count)
    if auto in names:
        return names[auto]
    if auto != "NOTSET" or not isinstance(pads, list) or len(pads) != count or not all(0 <= n <= LARGEST for n in pads):
        words = {2: "two", 4: "four", 6: "six"}[count]
        raise UnsupportedError(f"got pads {excerpt(pads)} and auto_pad {excerpt(auto)}, expected {words} of at least 0")
    return tuple(zip(pads[: op.rank], pads[op.rank :], strict=True))


def _convolution(op: Operation) -> Sequence[Layer]:
    op.expect_images()
    kernel, groups = op.array(1, "a kernel", 2 + op.rank), op.options.get("group", 1)
    bias = None if op.constant(2, "a bias") is None else op.vector(2, "a bias", len(kernel))
    if op.options.get("kernel_shape", [*kernel.shape[2:]]) != [*kernel.shape[2:]]:
        raise UnsupportedError(f"got kernel_shape {excerpt(op.options['kernel_shape'])}, expected that of its kernel")
    if not 1 <= groups <= len(kernel) or len(kernel) % groups:
        raise UnsupportedError(f"got {groups} groups, expected a divisor of its {len(kernel)} output channels")
    options = {"stride": op.each("strides"), "padding": _padding(op), "dilation": op.each("dilations")}
    return [convolution(kernel, bias, kernel.dtype.name, groups, **options)]


def _transposed(op: Operation) -> Sequence[Layer]:
    op.expect_images()
    kernel, groups = op.array(1, "a kernel", 2 + op.rank), op.options.get("group", 1)
    if not 1 <= groups <= len(kernel) or len(kernel) % groups:
        raise UnsupportedError(f"got {groups} groups, expected a divisor of its {len(kernel)} input channels")
    bias = None if op.constant(2, "a bias") is None else op.vector(2, "a bias", kernel.shape[1] * groups)
    pads, more = _padding(op), op.options.get("output_padding", [0] * op.rank)
    if isinstance(pads, str) or "output_shape" in op.options or len(more) != op.rank:
        raise UnsupportedError("got a padding by its name or an output_shape, expected pads and output_padding")
    crop = tuple((start, end - extra) for (start, end), extra in zip(pads, more, strict=True))
    stride, dilation = op.each("strides"), op.each("dilations")
    return [transposed_convolution(kernel, bias, stride, crop, dilation, groups, kernel.dtype.name)]


def _instance_norm(op: Operation) -> Sequence[Layer]:
    """The norm of each channel, or of each group of channels where they are in groups."""
    scale = op.array(1, "a scale", 1)
    if op.layout == GROUPS:
        return [_normalised(op, op.groups, op.channels(), op.vector(1, "a scale", op.groups))]
    op.expect_images()
    return [_normalised(op, len(scale), len(scale), scale)]


def _group_norm(op: Operation) -> Sequence[Layer]:
    """Before opset 21 it has a scale for each group, from then on for each channel."""
    op.expect_images()
    groups, scale = op.options["num_groups"], op.array(1, "a scale", 1)
    return [_normalised(op, groups, op.channels() if len(scale) == groups else len(scale), scale)]


def _normalised(op: Operation, groups: int, channels: int, scale: np.ndarray) -> Layer:
    shift = op.vector(2, "a shift", len(scale))
    if not 1 <= groups <= channels or channels % groups:
        raise UnsupportedError(f"got {groups} groups, expected a divisor of {channels} channels")
    scale, shift = (np.repeat(array, channels // len(array)) for array in (scale, shift))
    return GroupNorm(scale, shift, groups, op.options.get("epsilon", 1e-5), scale.dtype.name)


def _rms_norm(op: Operation) -> Sequence[Layer]:
    norm, *_ = _layer_norm(op)
    return [RMSNorm(norm.scale, norm.epsilon, norm.dtype)]


def _layer_norm(op: Operation) -> Sequence[LayerNorm]:
    axis = op.options.get("axis", -1)
    if op.letters([axis]) != "C" or axis % len(op.layout) != len(op.layout) - 1:
        raise UnsupportedError(f"got axis {axis} of {op.layout}, expected that of the channels, the last")
    scale = op.array(1, "a scale", 1)
    shift = np.zeros_like(scale) if op.constant(2, "a shift") is None else op.vector(2, "a shift", len(scale))
    return [LayerNorm(scale, shift, op.options.get("epsilon", 1e-5), scale.dtype.name)]


def _depth_to_space(op: Operation) -> Sequence[Layer]:
    op.expect(IMAGES)
    return [PixelShuffle(op.options["blocksize"], op.options.get("mode", "DCR") == "DCR")]


def _space_to_depth(op: Operation) -> Sequence[Layer]:
    op.expect(IMAGES)
    return [PixelUnshuffle(op.options["blocksize"], channels_last=True)]


def _local_response_norm(op: Operation) -> Sequence[Layer]:
    op.expect(IMAGES)
    size = op.options["size"]
    if size % 2 == 0:
        raise UnsupportedError(f"got a window of {size} channels, expected an odd number")
    numbers = (op.options.get(name, default) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return [LocalResponseNorm(size, *numbers)]


def _slice(op: Operation) -> Sequence[Layer]:
    """The crop that a slice of rows and columns is, and the part of the channels that one of channels is."""
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (op.constant(index, name) for index, name in enumerate(names, 1))
    if starts is None or ends is None or axes is None:
        raise UnsupportedError("got a slice without axes, expected one of rows, columns or channels")
    letters = op.letters(axes.ravel().tolist())
    if steps is not None and (steps != 1).any() and op.rank == 2:
        return [_subsample(letters, starts, ends, steps)]
    layers: list[Layer] = []
    crops = dict.fromkeys(INNER[op.rank], (0, 0))
    for letter, start, end in zip(letters, starts.ravel().tolist(), ends.ravel().tolist(), strict=True):
        if letter == "C":
            first, last, _ = slice(start, end).indices(op.channels())
            layers.append(_part(op, first, last - first))
            continue
        to_the_end = end >= 2**31 - 1
        if steps is not None and (steps != 1).any():
            raise UnsupportedError(f"got steps {excerpt(steps.tolist())} of {op.layout}, expected 1")
        if letter not in crops or not 0 <= start <= LARGEST or not (to_the_end or -LARGEST <= end < 0):
            raise UnsupportedError(f"got {start} to {end} of axis {letter}, expected rows or columns at the edges")
        crops[letter] = start, 0 if to_the_end else -end
    return [*layers, Crop((*crops.values(),))] if {*letters} - {"C"} else layers


def _subsample(letters: str, starts: np.ndarray, ends: np.ndarray, steps: np.ndarray) -> Subsample:
    """The rows and columns that a slice with steps takes."""
    start, step = {"H": 0, "W": 0}, {"H": 1, "W": 1}
    for letter, first, end, each in zip(letters, starts.ravel(), ends.ravel(), steps.ravel(), strict=True):
        if letter not in start or not (0 <= first <= LARGEST and 1 <= each <= LARGEST and end >= 2**31 - 1):
            raise UnsupportedError(f"got each {each} from {first} to {end} of axis {letter}, expected rows and columns")
        start[letter], step[letter] = int(first), int(each)
    return Subsample((start["H"], start["W"]), (step["H"], step["W"]))


def _split(op: Operation) -> Sequence[Layer]:
    if op.letters([op.options.get("axis", 0)]) != "C":
        raise UnsupportedError(f"got axis {op.options.get('axis', 0)} of {op.layout}, expected that of the channels")
    given = op.constant(1, "sizes")
    size, rest = divmod(op.channels(), op.options.get("num_outputs", op.results))
    sizes = [size] * op.results if given is None and not rest else np.ravel([] if given is None else given).tolist()
    if len(sizes) != op.results or sum(sizes) != op.channels():
        raise UnsupportedError(f"got the sizes {excerpt(sizes)} for {op.channels()} channels, expected all of them")
    return [_part(op, sum(sizes[: op.result]), sizes[op.result])]


def _part(op: Operation, start: int, size: int) -> Layer:
    """So many channels from one on."""
    if size < 1 or start + size > op.channels():
        raise UnsupportedError(f"got channels {start} to {start + size} of {op.channels()}, expected some of them")
    if op.channels() % size or start % size:
        return ChannelSlice(start, start + size)
    return Chunk(start // size, op.channels() // size)


def _gather(op: Operation) -> Sequence[Layer]:
    """The channel shuffle that an order of the channels is."""
    order, axis = op.constant(1, "an order"), op.options.get("axis", 0)
    if order is None or order.ndim != 1 or op.letters([axis]) != "C" or len(order) != op.channels():
        raise UnsupportedError("got places of other axes or of some channels, expected an order of all channels")
    # The second of the channels comes from the second group.
    groups = max(len(order) // max(int(order[1]), 1), 1) if len(order) > 1 else 1
    layer = ChannelShuffle(groups)
    if len(order) % groups or (layer.reference(np.arange(len(order))[None])[0] != order).any():
        raise UnsupportedError(f"got the order {excerpt(order.tolist())}, expected a channel shuffle")
    return [layer]


def _batch_norm(op: Operation) -> Sequence[Layer]:
    if op.layout != ROWS:
        op.expect_images()
    if op.options.get("training_mode", 0):
        raise UnsupportedError("got a batch norm in training, expected inference")
    scale = op.array(1, "a scale", 1)
    shift, mean, variance = (
        op.vector(i, name, len(scale)) for i, name in ((2, "a shift"), (3, "a mean"), (4, "a variance"))
    )
    if len({array.dtype for array in (scale, shift, mean, variance)}) > 1:
        raise UnsupportedError("got arrays of several dtypes, expected one")
    epsilon, momentum = op.options.get("epsilon", 1e-5), op.options.get("momentum", 0.9)
    return [BatchNorm(mean, variance, scale, shift, epsilon, momentum, scale.dtype.name)]


def _pool(function: str) -> Reader:
    def read(op: Operation) -> Sequence[Layer]:
        op.expect_images()
        if max(op.each("dilations")) > 1:
            raise UnsupportedError(f"got dilations {op.options['dilations']}, expected 1")
        if "kernel_shape" not in op.options:
            raise UnsupportedError("got no kernel_shape, expected one")
        padding, counted = _padding(op), bool(op.options.get("count_include_pad", 0)) and function == "average"
        ceil = bool(op.options.get("ceil_mode", 0))
        return [Pool(function, op.each("kernel_shape"), op.each("strides"), padding, counted, ceil)]

    return read


def _global_pool(function: str) -> Reader:
    def read(op: Operation) -> Sequence[Layer]:
        op.expect_images()
        return [GlobalPool(function, rank=op.rank)]

    return read


def _reduce(function: str) -> Reader:
    def read(op: Operation) -> Sequence[Layer]:
        axes = op.axes(1)
        if op.letters(axes) == "C" and op.options.get("keepdims", 1):
            return [ChannelPool(function)]
        if sorted(op.letters(axes)) != [*INNER[op.rank]]:
            raise UnsupportedError(f"got the axes {axes} of {op.layout}, expected rows and columns")
        keepdims = bool(op.options.get("keepdims", 1))
        op.layout = op.layout if keepdims else ROWS
        return [GlobalPool(function, keepdims, rank=op.rank)]

    return read


def _over_channels(layer: Layer) -> Reader:
    """The reader of a layer that goes along the channels."""

    def read(op: Operation) -> Sequence[Layer]:
        axis = op.options.get("axis", -1)
        if op.letters([axis]) != "C":
            raise UnsupportedError(f"got axis {axis} of {op.layout}, expected that of the channels")
        return [layer]

    return read


def _concatenate(op: Operation) -> Sequence[Layer]:
    if op.letters([op.options.get("axis", -1)]) == "T":
        return [ConcatenatePixels()]
    return _over_channels(Concatenate())(op)


def _dense_layer(op: Operation, kernel: np.ndarray, bias: np.ndarray | None) -> Layer:
    """A dense layer, which on pixels is a convolution of one pixel."""
    if op.layout == LAST[op.rank]:
        pixel = np.ascontiguousarray(kernel).reshape(*kernel.shape, *(1,) * op.rank)
        return convolution(pixel, bias, kernel.dtype.name)
    op.expect(ROWS)
    return Dense(kernel, bias, kernel.dtype.name)


def _gemm(op: Operation) -> Sequence[Layer]:
    op.expect(ROWS)
    if op.options.get("transA", 0) or not isinstance(op.inputs[0], Value):
        raise UnsupportedError("got a product whose first factor is transposed or constant, expected rows of numbers")
    kernel, bias = op.array(1, "a kernel", 2), op.constant(2, "a bias")
    kernel = kernel if op.options.get("transB", 0) else kernel.T
    if bias is not None:
        if bias.dtype != kernel.dtype or bias.size not in (1, len(kernel)) or bias.shape[:-1] not in ((), (1,)):
            raise UnsupportedError(f"got a bias of shape {bias.shape}, expected {len(kernel)} numbers as its kernel's")
        bias = np.broadcast_to(bias.ravel() * bias.dtype.type(op.options.get("beta", 1.0)), len(kernel))
    alpha = op.options.get("alpha", 1.0)
    return [_dense_layer(op, kernel if alpha == 1 else kernel * kernel.dtype.type(alpha), bias)]


def _matmul(op: Operation) -> Sequence[Layer]:
    if not isinstance(op.inputs[0], Value):
        raise UnsupportedError("got a product whose first factor is constant, expected rows of numbers")
    return [_dense_layer(op, op.array(1, "a kernel", 2).T, None)]


def _flatten(op: Operation) -> Sequence[Layer]:
    axis, rank = op.options.get("axis", 1), len(op.layout)
    if axis not in (1, 1 - rank):
        raise UnsupportedError(f"got axis {axis}, expected 1")
    return flattened(op)


def flattened(op: Operation) -> Sequence[Layer]:
    """The flattening of images; nothing for rows of numbers."""
    before, op.layout = op.layout, ROWS
    if before not in LAYOUTS:
        raise UnsupportedError(f"got values with axes {before}, expected images")
    return [] if before == ROWS else [Flatten("CHW" if before in FIRST.values() else "HWC")]


def _pad(op: Operation) -> Sequence[Layer]:
    given, axes = op.constant(1, "pads"), op.constant(3, "axes")
    modes = {"constant": "zeros", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    mode = modes.get(op.options.get("mode", "constant"), "")
    letters = op.layout if axes is None else op.letters(axes.ravel().tolist())
    pads = [] if given is None else given.ravel().tolist()
    if len(pads) != 2 * len(letters) or not all(0 <= n <= LARGEST for n in pads) or not mode:
        raise UnsupportedError(f"got pads {excerpt(pads)} of {letters}, mode {mode!r}, expected numbers of at least 0")
    both = dict(zip(letters, zip(pads[: len(letters)], pads[len(letters) :], strict=True), strict=True))
    ends = tuple(both.pop(axis, (0, 0)) for axis in INNER[op.rank])
    if any(map(any, both.values())) or op.layout not in (FIRST[op.rank], LAST[op.rank]):
        raise UnsupportedError(f"got pads {excerpt(pads)} of {letters}, expected rows and columns of images")
    filling = op.constant(2, "a value")
    value = 0.0 if filling is None or not filling.size else float(filling.ravel()[0])
    if value == -np.inf and mode == "zeros":
        return [Pad(ends, LOWEST)]
    return [Pad(ends, mode, value if mode == "zeros" else 0.0)]


def _dropout(op: Operation) -> Sequence[Layer]:
    rate, training = op.constant(1, "a rate"), op.constant(2, "a mode of training")
    if training is not None and training.any():
        raise UnsupportedError("got a dropout in training, expected inference")
    return [Dropout(0.5 if rate is None or not rate.size else float(str(rate.ravel()[0])))]


# They also take tokens.
OF_TOKENS = (*ARITHMETIC, "Softmax", "LogSoftmax", "Concat", "Dropout")
# Another kind of layer is another entry.
OPERATORS: dict[str, Reader] = {
    **ARITHMETIC,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "Resize": resize,
    "SpaceToDepth": _space_to_depth,
    "LRN": _local_response_norm,
    "DepthToSpace": _depth_to_space,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "MaxPool": _pool("max"),
    "AveragePool": _pool("average"),
    "GlobalMaxPool": _global_pool("max"),
    "GlobalAveragePool": _global_pool("average"),
    "ReduceMax": _reduce("max"),
    "ReduceMean": _reduce("average"),
    "ReduceSum": _reduce("sum"),
    "Softmax": _over_channels(Softmax()),
    "LogSoftmax": _over_channels(Softmax(log=True)),
    "Concat": _concatenate,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Flatten": _flatten,
    "Pad": _pad,
    "Dropout": _dropout,
}
