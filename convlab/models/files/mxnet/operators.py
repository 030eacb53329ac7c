"""MXNet's operators and the layers that they are: one entry for each in `OPERATORS`; MXNet itself isn't needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ....errors import UnsupportedError
from ...layers.across_channels import LocalResponseNorm
from ...layers.activations import Activation, Affine, PReLU, Softmax, clip
from ...layers.channels import ChannelSlice, PixelShuffle, PixelUnshuffle
from ...layers.flattening import Flatten, Unflatten
from ...layers.folded import convolution
from ...layers.joining import Add, BroadcastLike, Concatenate, Divide, Joining, Maximum, Minimum, Multiply, Subtract
from ...layers.layer import LOWEST, BatchNorm, Dense, Dropout, Layer, Pad
from ...layers.norms import ChannelAffine, GroupNorm, LayerNorm
from ...layers.pixels import Crop, Upsample
from ...layers.pooling import AdaptivePool, ChannelPool, GlobalPool, Pool
from ...layers.resizing import Resize, ResizeLike
from ...layers.spatial import around, is_padded, per_axis, starts
from ...layers.transposed import transposed_convolution
from ..fields import LARGEST

# What a node has: its options, "rows" for whether its inputs are rows of numbers among them, and its arrays.
Arrays = Sequence[np.ndarray]
Reader = Callable[[Mapping[str, Any], Arrays], Layer]

# The layout of images with so many axes.
LAYOUTS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
# The axes of images NCHW, and of others, beside those of images and channels.
_INNER = ((2,), (2, 3), (2, 3, 4))
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}
ACTIVATIONS = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "softrelu": "softplus", "softsign": "softsign"}


def rounds_alike(layer: Pool) -> bool:
    """Whether MXNet's ceil_mode adds no window that begins beyond the image, as PyTorch's never does."""
    assert not isinstance(layer.padding, str)
    axes = zip(starts(layer.padding), layer.stride, layer.size, strict=True)
    return all(before + step <= size for before, step, size in axes)


def _fitting(arrays: Arrays, ranks: Sequence[int], optional: int = 0) -> Arrays:
    """Arrays with so many axes each, of which the last few may be missing, and vectors as long as the first's.

    Raises:
        UnsupportedError: they have others.
    """
    shapes = [array.shape for array in arrays]
    numbers = all(array.dtype.kind == "f" and array.size and array.dtype == arrays[0].dtype for array in arrays)
    least = len(ranks) - optional
    if (
        not numbers
        or not least <= len(arrays) <= len(ranks)
        or any(len(shape) != rank or shape[:1] != shapes[0][:1] for shape, rank in zip(shapes, ranks, strict=False))
    ):
        raise UnsupportedError(f"its arrays have shapes {shapes}, expected {least} to {len(ranks)} that fit together")
    return arrays


def _convolution(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    rank = len(options["kernel"])
    if options.get("layout", "None") not in (LAYOUTS.get(rank, ""), "None", None):
        raise UnsupportedError(f"its layout is {options.get('layout')}, expected {', '.join(LAYOUTS.values())}")
    arrays = _fitting(arrays, (rank + 2, 1), optional=1)
    if arrays[0].shape[2:] != options["kernel"]:
        raise UnsupportedError(f"its kernel has shape {arrays[0].shape}, expected {options['kernel']} at the end")
    return convolution(
        arrays[0],
        arrays[1] if len(arrays) > 1 else None,
        arrays[0].dtype.name,
        options.get("num_group", 1),
        stride=options.get("stride") or (1,) * rank,
        padding=around(options.get("pad") or (0,) * rank),
        dilation=options.get("dilate") or (1,) * rank,
    )


def _transposed(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    rank = len(options["kernel"])
    if options.get("layout", "None") not in (LAYOUTS.get(rank, ""), "None", None):
        raise UnsupportedError(f"its layout is {options.get('layout')}, expected {', '.join(LAYOUTS.values())}")
    if options.get("target_shape"):
        raise UnsupportedError("its result has a fixed size (target_shape)")
    (kernel,), groups = _fitting(arrays[:1], (rank + 2,)), int(options.get("num_group", 1))
    bias = arrays[1] if len(arrays) > 1 else None
    if kernel.shape[2:] != options["kernel"] or (bias is not None and bias.shape != (kernel.shape[1] * groups,)):
        raise UnsupportedError(f"its arrays have shapes {[array.shape for array in arrays]}, which don't fit together")
    pads, adjusted = options.get("pad") or (0,) * rank, options.get("adj") or (0,) * rank
    crop = tuple((before, before - more) for before, more in zip(pads, adjusted, strict=True))
    geometry = options.get("stride") or (), crop, options.get("dilate") or (), groups
    return transposed_convolution(kernel, bias, *geometry, kernel.dtype.name)


def _layer_norm(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    axis = options.get("axis", -1)
    if axis != 1 and not (axis == -1 and options["rows"]):
        raise UnsupportedError(f"it normalises axis {axis}, which isn't that of the channels")
    scale, shift = _fitting(arrays, (1, 1))
    return LayerNorm(scale, shift, float(options.get("eps", 1e-5)), scale.dtype.name)


def _instance_norm(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    scale, shift = _fitting(arrays, (1, 1))
    return GroupNorm(scale, shift, len(scale), float(options.get("eps", 1e-3)), scale.dtype.name)


def _upsampling(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    if options.get("sample_type") != "nearest":
        raise UnsupportedError(f"its sample_type is {options.get('sample_type')}, expected nearest")
    return Upsample((int(options["scale"]),) * 2, "nearest")


def _bilinear(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    """Bilinear interpolation, by default of aligned corners: to a size, by a factor, or to another image's size."""
    aligned, mode = bool(options.get("align_corners", True)), options.get("mode", "size")
    factor: Any = options.get("scale_height"), options.get("scale_width")
    if mode == "like":
        return ResizeLike("bilinear", aligned)
    if mode != "size" or None in factor != (None, None):
        raise UnsupportedError(f"its mode is {mode}, expected size or like")
    if factor == (None, None):
        return Resize((int(options["height"]), int(options["width"])), "bilinear", aligned)
    if any(number != int(number) or not 1 <= number <= LARGEST for number in factor):
        raise UnsupportedError(f"it resizes by {factor[0]} and {factor[1]}, expected integers")
    return Upsample((int(factor[0]), int(factor[1])), "bilinear", aligned)


def _batch_norm(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    if options.get("axis", 1) != 1:
        raise UnsupportedError(f"it normalises axis {options['axis']}, which isn't that of the channels")
    scale, shift, mean, variance = _fitting(arrays, (1, 1, 1, 1))
    scale = np.ones_like(scale) if options.get("fix_gamma", True) else scale
    epsilon, momentum = float(options.get("eps", 1e-3)), float(options.get("momentum", 0.9))
    return BatchNorm(mean, variance, scale, shift, epsilon, momentum, mean.dtype.name)


def _pool(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    names = {"max": "max", "avg": "average"}
    kind = options.get("pool_type", "max")
    if kind not in names:
        raise UnsupportedError(f"convlab doesn't know the pooling {kind}")
    rank = len(options.get("kernel") or (1, 1))
    if options.get("global_pool"):
        return GlobalPool(names[kind], rank=rank)
    padding = around(options.get("pad") or (0,) * rank)
    counted = bool(options.get("count_include_pad", True)) and kind == "avg" and is_padded(padding)
    ceil = options.get("pooling_convention", "valid") == "full"
    pool = Pool(names[kind], options["kernel"], options.get("stride") or (1,) * rank, padding, counted, ceil)
    if ceil and not rounds_alike(pool):
        raise UnsupportedError("with its ceil_mode, windows may begin beyond the image")
    return pool


def _pad(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    ends = [*options["pad_width"]]
    pads = tuple(zip(ends[4::2], ends[5::2], strict=True))
    mode = next((ours for ours, theirs in MODES.items() if theirs == options["mode"]), "")
    if any(ends[:4]) or not mode:
        raise UnsupportedError(f"it pads by {tuple(ends)} in the mode {options['mode']!r}")
    value = float(options.get("constant_value", 0.0))
    return Pad(pads, LOWEST) if value == -math.inf else Pad(pads, mode, value)


def _slice(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    axis, begin, end = options["axis"], options["begin"], options.get("end")
    if axis == 1 and begin >= 0 and (end is None or end > begin):
        return ChannelSlice(begin, end or 0)
    if axis not in (2, 3) or begin < 0 or (end or 0) > 0 or end == 0 or options["rows"]:
        raise UnsupportedError(f"it takes {begin} to {end} of axis {axis}, which depends on the image's size")
    pads = [(0, 0), (0, 0)]
    pads[axis - 2] = begin, -(end or 0)
    return Crop(tuple(pads))


def _activation(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    if options["act_type"] not in ACTIVATIONS:
        raise UnsupportedError(f"convlab doesn't know the function {options['act_type']}")
    return Activation(ACTIVATIONS[options["act_type"]])


def _leaky(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    names = {"leaky": "leaky_relu", "elu": "elu", "gelu": "gelu", "selu": "selu"}
    kind = options.get("act_type", "leaky")
    if kind == "prelu":
        (slope,) = _fitting(arrays, (1,))
        return PReLU(slope, slope.dtype.name)
    if kind not in names:
        raise UnsupportedError(f"convlab doesn't know the function {kind}")
    return Activation(names[kind], 0.0 if kind in ("gelu", "selu") else float(np.float32(options.get("slope", 0.25))))


def _clip(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    return clip(options["a_min"], options["a_max"])


def _concatenate(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    axis = options.get("dim", options.get("axis", 1))
    if axis != 1:
        raise UnsupportedError(f"it concatenates along axis {axis}, expected 1, the channels")
    return Concatenate()


def _joined(joining: type[Joining], name: str = "") -> Callable[[Mapping[str, Any], Arrays], Layer]:
    """Values joined, or one value and a number for each channel, which has this name in `ChannelAffine`."""

    def read(options: Mapping[str, Any], arrays: Arrays) -> Layer:
        if not arrays:
            return joining()
        numbers = arrays[0]
        shape = numbers.shape[-3:] if numbers.size > 1 else (1, 1, 1)
        if not name or len(arrays) > 1 or numbers.dtype.kind != "f" or shape != (numbers.size, 1, 1):
            raise UnsupportedError(f"it takes an array of shape {numbers.shape} beside the image")
        own: dict[str, Any] = {name: numbers.reshape(-1)}
        return ChannelAffine(**own, trained=True, dtype=numbers.dtype.name)

    return read


def _repeat(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    """Repeated rows or columns of images."""
    axis, times = options.get("axis"), int(options["repeats"])
    if axis not in (2, 3):
        raise UnsupportedError(f"it repeats the numbers of axis {axis}, expected 2 or 3, rows or columns")
    return Upsample((times, 1) if axis == 2 else (1, times), "nearest")


def _broadcast_like(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    axes = per_axis(options.get("lhs_axes"), 1)
    if axes != per_axis(options.get("rhs_axes"), 1) or axes not in _INNER:
        raise UnsupportedError("it repeats other axes than (2, 3), rows and columns")
    return BroadcastLike(rank=len(axes))


def _reduced(function: str) -> Reader:
    def read(options: Mapping[str, Any], arrays: Arrays) -> Layer:
        axes, keepdims = per_axis(options.get("axis"), 1), bool(options.get("keepdims", False))
        if axes == (1,) and keepdims:
            return ChannelPool(function)
        if axes not in _INNER:
            raise UnsupportedError(f"it reduces the axes {options.get('axis')}, expected (2, 3), rows and columns")
        return GlobalPool(function, keepdims, rank=len(axes))

    return read


def _reshape(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    shape = options.get("shape", options.get("newshape"))
    if shape == (0, -1):
        return Flatten()
    axes = [*shape] if isinstance(shape, tuple) else []
    images = 3 <= len(axes) <= 5 and axes[0] in (0, -1) and (axes[0] == 0 or axes[1] > 0)
    if not images or not options["rows"] or not all(0 < size <= LARGEST for size in axes[2:]):
        raise UnsupportedError(f"it gives the shape {shape}, expected (0, -1), or (0, -1, rows, columns) of rows")
    return Unflatten(tuple(axes[2:]))


def _adaptive(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    size = options.get("output_size") or 1
    rows, columns = (size, size) if isinstance(size, int) else (size[0], size[-1])
    return GlobalPool("average") if rows == columns == 1 else AdaptivePool("average", (rows, columns))


def _depth_to_space(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    factor = int(options["block_size"])
    if not 0 < factor <= LARGEST:
        raise UnsupportedError(f"its block_size is {factor}, expected a size")
    return PixelShuffle(factor, channels_last=True)


def _space_to_depth(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    return PixelUnshuffle(int(options["block_size"]), channels_last=True)


def _local_response_norm(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    numbers = (float(options.get(name, default)) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("knorm", 2.0)))
    return LocalResponseNorm(int(options["nsize"]), *numbers)


def _expand_dims(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    """The first of two that make images of one pixel of rows; the second does nothing more."""
    if not options["rows"] or options["axis"] not in (2, -1):
        raise UnsupportedError("it adds an axis, expected rows of numbers that get two")
    return Unflatten((1, 1))


def _dropout(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    return dropout(float(options.get("p", 0.5)), options.get("axes", ()))


def dropout(rate: float, axes: Sequence[int]) -> Dropout:
    """The dropout along axes of images NCHW, or of sequences or volumes, whose number the last of them tells."""
    last = max(axes, default=0)
    return Dropout.along(rate, axes, pixels=tuple(range(2, last + 1)) if last > 1 else (2, 3))


def _softmax(log: bool) -> Reader:
    def read(options: Mapping[str, Any], arrays: Arrays) -> Layer:
        axis = options.get("axis", -1)
        if axis != 1 and not (axis == -1 and options["rows"]):
            raise UnsupportedError(f"its axis is {axis}, expected 1, the channels")
        return Softmax(log)

    return read


def _function(name: str) -> Reader:
    return lambda options, arrays: Activation(name)


def _affine(of: Callable[[float], Layer]) -> Reader:
    return lambda options, arrays: of(float(options["scalar"]))


def _dense(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    arrays = _fitting(arrays, (2, 1), optional=1)
    return Dense(arrays[0], arrays[1] if len(arrays) > 1 else None, arrays[0].dtype.name)


EXPAND_DIMS = "expand_dims"
# What divides vectors by their lengths, which is several layers.
UNIT = "L2Normalization"
# Another operator is another entry.
OPERATORS: dict[str, Reader] = {
    "Convolution": _convolution,
    "Deconvolution": _transposed,
    "BatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "_npx_layer_norm": _layer_norm,
    "InstanceNorm": _instance_norm,
    "UpSampling": _upsampling,
    "repeat": _repeat,
    "_contrib_BilinearResize2D": _bilinear,
    "FullyConnected": _dense,
    "Pooling": _pool,
    "Pad": _pad,
    "slice_axis": _slice,
    "Activation": _activation,
    "LeakyReLU": _leaky,
    "clip": _clip,
    "_npi_clip": _clip,
    "Concat": _concatenate,
    "_npi_concatenate": _concatenate,
    **dict.fromkeys(("mean", "_npi_mean"), _reduced("average")),
    **dict.fromkeys(("max", "_np_max"), _reduced("max")),
    **dict.fromkeys(("sum", "_np_sum"), _reduced("sum")),
    "Reshape": _reshape,
    "_np_reshape": _reshape,
    EXPAND_DIMS: _expand_dims,
    "softmax": _softmax(log=False),
    "SoftmaxOutput": lambda options, arrays: Softmax(),
    "log_softmax": _softmax(log=True),
    "_npx_softmax": _softmax(log=False),
    "_npx_log_softmax": _softmax(log=True),
    "Flatten": lambda options, arrays: Flatten(),
    "Dropout": _dropout,
    "_contrib_AdaptiveAvgPooling2D": _adaptive,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "LRN": _local_response_norm,
    **dict.fromkeys(("elemwise_add", "broadcast_add", "_npi_add"), _joined(Add, "shift")),
    **dict.fromkeys(("broadcast_like", "_npx_broadcast_like"), _broadcast_like),
    **dict.fromkeys(("elemwise_sub", "broadcast_sub", "_npi_subtract"), _joined(Subtract)),
    **dict.fromkeys(("elemwise_mul", "broadcast_mul", "_npi_multiply"), _joined(Multiply, "scale")),
    **dict.fromkeys(("elemwise_div", "broadcast_div", "_npi_true_divide"), _joined(Divide)),
    **dict.fromkeys(("_maximum", "broadcast_maximum", "_npi_maximum"), _joined(Maximum)),
    **dict.fromkeys(("_minimum", "broadcast_minimum", "_npi_minimum"), _joined(Minimum)),
    **dict.fromkeys(("_maximum_scalar", "_npi_maximum_scalar"), _affine(lambda number: clip(number, None))),
    **dict.fromkeys(("_minimum_scalar", "_npi_minimum_scalar"), _affine(lambda number: clip(None, number))),
    **dict.fromkeys(("_mul_scalar", "_npi_multiply_scalar"), _affine(lambda number: Affine(scale=number))),
    **dict.fromkeys(("_div_scalar", "_npi_true_divide_scalar"), _affine(lambda number: Affine(scale=1 / number))),
    **dict.fromkeys(("_plus_scalar", "_npi_add_scalar"), _affine(lambda number: Affine(shift=number))),
    **dict.fromkeys(("_minus_scalar", "_npi_subtract_scalar"), _affine(lambda number: Affine(shift=-number))),
    **dict.fromkeys(("relu", "_npx_relu"), _function("relu")),
    **dict.fromkeys(("sigmoid", "_npx_sigmoid"), _function("sigmoid")),
    **dict.fromkeys(("tanh", "_npi_tanh"), _function("tanh")),
    "softsign": _function("softsign"),
    **dict.fromkeys(("abs", "_npi_absolute"), _function("abs")),
    **dict.fromkeys(("sqrt", "_npi_sqrt"), _function("sqrt")),
    **dict.fromkeys(("exp", "_npi_exp"), _function("exp")),
    **dict.fromkeys(("log", "_npi_log"), _function("log")),
    **dict.fromkeys(("reciprocal", "_npi_reciprocal"), _function("reciprocal")),
}
# Operators whose inputs are parameters but for the first.
LEARNED = {"Convolution", "Deconvolution", "FullyConnected", "BatchNorm", "LayerNorm", "_npx_layer_norm", "LeakyReLU"}
LEARNED |= {"InstanceNorm"}
# Operators that do nothing in inference.
NOTHING = ("identity", "_copy", "BlockGrad", "_np_copy")
