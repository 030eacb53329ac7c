"""PyTorch's functions as layers: what a model's code calls between its modules."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convlab.errors import UnsupportedError
from convlab.geometry.geometry import Pair
from convlab.models.layers.activations import Affine
from convlab.models.layers.attention import FirstPixel
from convlab.models.layers.channels import ChannelSlice, Chunk, PixelShuffle
from convlab.models.layers.dot_product import DotProductAttention
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.joining import Add, BroadcastLike, Concatenate, Divide, Maximum, Minimum, Multiply, Subtract
from convlab.models.layers.layer import Layer
from convlab.models.layers.outputs import Outputs, container_of
from convlab.models.layers.pixels import Subsample
from convlab.models.layers.pooling import ChannelPool, GlobalPool
from convlab.models.layers.spatial import Size

from . import across_channels, activations
from .attention import SHIFTED_WINDOWS, attend, first_pixel, of_windows
from .modules import LayerNorm2d, PixelLinear, RMSNorm2d, StochasticDepth
from .resizing import read_resizing
from .written_out import written_attention


def add(*tensors: Tensor) -> Tensor:
    """The sum of tensors."""
    return reduce(torch.add, tensors)


def subtract(x: Tensor, y: Tensor) -> Tensor:
    """The difference of tensors."""
    return x - y


def multiply(*tensors: Tensor) -> Tensor:
    """The product of tensors, element by element."""
    return reduce(torch.mul, tensors)


def divide(x: Tensor, y: Tensor) -> Tensor:
    """The quotient of tensors, element by element."""
    return x / y


def greatest(*tensors: Tensor) -> Tensor:
    """The greatest of tensors, element by element."""
    return reduce(torch.maximum, tensors)


def least(*tensors: Tensor) -> Tensor:
    """The least of tensors, element by element."""
    return reduce(torch.minimum, tensors)


def concatenate(*tensors: Tensor) -> Tensor:
    """The channels of tensors, one after another."""
    return torch.cat(tensors, dim=1)


def broadcast_like(x: Tensor, like: Tensor) -> Tensor:
    """Images of one pixel, repeated for each pixel of others."""
    return x.expand(-1, -1, *like.shape[2:])


def outputs(*tensors: Tensor, names: tuple[str, ...] = ()) -> Any:
    """Several results of a model: a tuple, or a dictionary if they have names."""
    return container_of(tensors, names)


def resize_like(x: Tensor, like: Tensor, mode: str, align_corners: bool | None = None) -> Tensor:
    """Images with the rows and columns of others."""
    return F.interpolate(x, size=like.shape[2:], mode=mode, align_corners=align_corners)


def affine(x: Tensor, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """The tensor times a number, and another number added."""
    y = x if scale == 1.0 else x * scale
    return y if shift == 0.0 else y + shift


def with_number(name: str, number: float, behind: bool = True) -> partial[Tensor]:
    """What "add", "sub", "mul" or "div" of a tensor and a number is, `behind` it or, but for a division, before it."""
    scale_and_shift: dict[str, tuple[float, float]] = {
        "add": (1.0, number),
        "sub": (1.0, -number) if behind else (-1.0, number),
        "mul": (number, 0.0),
        "div": (1 / number if number else math.inf, 0.0),
    }
    scale, shift = map(float, scale_and_shift[name])
    return partial(affine, scale=scale, shift=shift)


def over_last_axis(module: nn.Module, rank: int = 2) -> nn.Module | None:
    """A module that does to the channels of images NCHW what another does to their last axis, with its parameters."""
    other: nn.Module
    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
        other = LayerNorm2d(module.normalized_shape[0], module.eps, elementwise_affine=False)
    elif type(module) is nn.RMSNorm and len(module.normalized_shape) == 1:
        other = RMSNorm2d(module.normalized_shape[0], module.eps, elementwise_affine=False)
    elif type(module) is nn.Linear:
        other = PixelLinear(module.in_features, module.out_features, bias=False, device="meta")
        other.rank = rank
    elif rank != 2:
        return None
    else:
        return of_windows(module) if class_path(module) in SHIFTED_WINDOWS else written_attention(module)
    other.weight = module.weight
    if hasattr(module, "bias"):
        other.bias = module.bias
    return other.train(module.training)


def softmax_of_channels(native: Any, axes: int) -> nn.Module | None:
    """The softmax over the channels of images NCHW that one over the last of so many axes is; None for another."""
    if isinstance(native, (nn.Softmax, nn.LogSoftmax)) and native.dim in (-1, axes - 1):
        return type(native)(1)
    return None


def class_path(module: nn.Module) -> str:
    """The module's class, as it is imported."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def subsample(x: Tensor, start: Pair, step: Pair) -> Tensor:
    """Some rows and columns: the first, and then each so many further on."""
    return x[:, :, start[0] :: step[0], start[1] :: step[1]]


def channel_slice(x: Tensor, start: int, stop: int = 0) -> Tensor:
    """Some of the channels that follow one another; a stop of 0 is behind the last."""
    return x[:, start : stop or None]


def chunk(x: Tensor, index: int, count: int) -> Tensor:
    """One of some equal parts of the channels."""
    return x.chunk(count, dim=1)[index]


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """The channels of each pixel as a square of pixels, in TensorFlow's order."""
    return F.pixel_shuffle(F.channel_shuffle(x, factor**2), factor)


def unflatten_pixels(x: Tensor, size: Size) -> Tensor:
    """Rows of numbers, pixel by pixel, as images (N, C, H, W) of a size."""
    return x.reshape(len(x), *size, x.shape[1] // math.prod(size)).movedim(-1, 1)


def flatten_pixels(x: Tensor) -> Tensor:
    """Images (N, C, H, W) as rows of numbers, pixel by pixel."""
    return x.movedim(1, -1).flatten(1)


def average(x: Tensor, keepdim: bool, rank: int = 2) -> Tensor:
    """The mean of each channel, over so many axes."""
    return x.mean(dim=tuple(range(2, rank + 2)), keepdim=keepdim)


def maximum(x: Tensor, keepdim: bool, rank: int = 2) -> Tensor:
    """The greatest element of each channel, over so many axes."""
    return x.amax(dim=tuple(range(2, rank + 2)), keepdim=keepdim)


def total(x: Tensor, keepdim: bool, rank: int = 2) -> Tensor:
    """The sum of each channel, over so many axes."""
    return x.sum(dim=tuple(range(2, rank + 2)), keepdim=keepdim)


def channel_average(x: Tensor) -> Tensor:
    """The mean of all channels of each pixel."""
    return x.mean(dim=1, keepdim=True)


def channel_maximum(x: Tensor) -> Tensor:
    """The greatest channel of each pixel."""
    return x.amax(dim=1, keepdim=True)


def channel_total(x: Tensor) -> Tensor:
    """The sum of all channels of each pixel."""
    return x.sum(dim=1, keepdim=True)


def read_function(native: Any) -> tuple[Layer | None, str]:
    """What a function that `native_of` gives computes, and its name."""
    function, options = (native.func, native.keywords) if isinstance(native, partial) else (native, {})
    readers: dict[Any, Callable[[], Layer]] = {
        add: Add,
        subtract: Subtract,
        multiply: Multiply,
        divide: Divide,
        greatest: Maximum,
        least: Minimum,
        concatenate: Concatenate,
        broadcast_like: BroadcastLike,
        outputs: lambda: Outputs(**options),
        resize_like: lambda: read_resizing(None, **options),
        affine: lambda: Affine(**options),
        chunk: lambda: Chunk(**options),
        channel_slice: lambda: ChannelSlice(**options),
        depth_to_space: lambda: PixelShuffle(options["factor"], channels_last=True),
        subsample: lambda: Subsample(**options),
        unflatten_pixels: lambda: Unflatten(options["size"], "HWC"),
        flatten_pixels: lambda: Flatten("HWC"),
        first_pixel: FirstPixel,
        attend: lambda: DotProductAttention(**options),
        channel_average: lambda: ChannelPool("average"),
        channel_maximum: lambda: ChannelPool("max"),
        channel_total: lambda: ChannelPool("sum"),
        average: lambda: GlobalPool("average", options["keepdim"], rank=options.get("rank", 2)),
        total: lambda: GlobalPool("sum", options["keepdim"], rank=options.get("rank", 2)),
        maximum: lambda: GlobalPool("max", options["keepdim"], rank=options.get("rank", 2)),
    }
    name = str(getattr(function, "__name__", function))
    others = {**across_channels.FUNCTIONS, **activations.FUNCTIONS}
    if function in others:
        return others[function](**options), name
    return (readers[function](), name) if function in readers else (None, name)


def _dropout(
    p: float = 0.5, training: bool = True, inplace: bool = False, kind: type[nn.Module] = nn.Dropout
) -> nn.Module:
    if training:
        raise UnsupportedError("it drops elements in inference, too; training=self.training is customary")
    return kind(p)


def _pad(pad: Any, mode: str = "constant", value: float | None = None, rank: int = 2) -> nn.Module:
    if not any(pad):
        return nn.Identity()
    if len(pad) != 2 * rank:
        raise UnsupportedError(f"it pads {len(pad) // 2} axes, expected {AXES[rank]}")
    kinds = {"reflect": "ReflectionPad", "replicate": "ReplicationPad", "circular": "CircularPad"}
    if mode in kinds:
        return of_rank(kinds[mode], rank)(tuple(pad))  # type: ignore[no-any-return]
    return of_rank("ConstantPad", rank)(tuple(pad), value or 0.0)  # type: ignore[no-any-return]


def of_rank(name: str, rank: int) -> Any:
    """PyTorch's class of this name for so many axes."""
    return getattr(nn, f"{name}{rank}d")


def _over_pixels(function: Callable[..., Tensor]) -> Callable[..., Any]:
    def native(dim: Any = None, keepdim: bool = False, rank: int = 2) -> Any:
        axes = [] if dim is None else [dim] if isinstance(dim, int) else [*dim]
        if sorted(axis % (rank + 2) for axis in axes) != [*range(2, rank + 2)]:
            raise UnsupportedError(f"it reduces the axes {dim}, expected {(*range(2, rank + 2),)}, {AXES[rank]}")
        return partial(function, keepdim=keepdim, **({} if rank == 2 else {"rank": rank}))

    native.ranked = True  # type: ignore[attr-defined]
    return native


def _interpolate(
    size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None, **others: Any
) -> nn.Module:
    if any(others.values()):
        raise UnsupportedError("it has options beyond size, scale_factor, mode and align_corners")
    return nn.Upsample(size=size, scale_factor=scale_factor, mode=mode, align_corners=align_corners)


def _resize_like(mode: str = "nearest", align_corners: bool | None = None, **others: Any) -> Any:
    if any(others.values()):
        raise UnsupportedError("it has options beyond size, mode and align_corners")
    read_resizing(None, mode)  # which refuses other modes
    return partial(resize_like, mode=mode, align_corners=align_corners)


def _stochastic_depth(p: float, mode: str, training: bool = True) -> nn.Module:
    """Torchvision's function of this name."""
    if mode != "row":
        raise UnsupportedError(f"its mode is {mode!r}, expected 'row', whole images")
    return StochasticDepth(p)


def _concatenate(dim: int = 0, rank: int = 2) -> Any:
    if dim not in (1, -1 - rank):
        raise UnsupportedError(f"it concatenates along axis {dim}, expected 1, the channels")
    return concatenate


# The axes beside those of images and channels, in words.
AXES = {1: "the length", 2: "the rows and columns", 3: "the depth, the rows and the columns"}
# The module, or the function of this file, that computes what a function with these further arguments does.
_NATIVES: list[tuple[tuple[Any, ...], Callable[..., Any]]] = [
    *activations.NATIVES,
    ((F.softmax, torch.softmax, "softmax"), lambda dim=None: nn.Softmax(dim)),
    ((F.log_softmax, torch.log_softmax, "log_softmax"), lambda dim=None: nn.LogSoftmax(dim)),
    ((F.dropout,), _dropout),
    ((F.dropout1d,), partial(_dropout, kind=nn.Dropout1d)),
    ((F.dropout2d,), partial(_dropout, kind=nn.Dropout2d)),
    ((F.dropout3d,), partial(_dropout, kind=nn.Dropout3d)),
    ((F.max_pool1d, torch.max_pool1d), nn.MaxPool1d),
    ((F.max_pool2d, torch.max_pool2d), nn.MaxPool2d),
    ((F.max_pool3d, torch.max_pool3d), nn.MaxPool3d),
    ((F.avg_pool1d,), nn.AvgPool1d),
    ((F.avg_pool2d,), nn.AvgPool2d),
    ((F.avg_pool3d,), nn.AvgPool3d),
    ((F.adaptive_avg_pool1d,), nn.AdaptiveAvgPool1d),
    ((F.adaptive_avg_pool2d,), nn.AdaptiveAvgPool2d),
    ((F.adaptive_avg_pool3d,), nn.AdaptiveAvgPool3d),
    ((F.adaptive_max_pool1d,), nn.AdaptiveMaxPool1d),
    ((F.adaptive_max_pool2d,), nn.AdaptiveMaxPool2d),
    ((F.adaptive_max_pool3d,), nn.AdaptiveMaxPool3d),
    ((F.pad,), _pad),
    ((F.interpolate, F.upsample), _interpolate),
    ((F.pixel_shuffle, "pixel_shuffle"), nn.PixelShuffle),
    ((F.channel_shuffle, "channel_shuffle"), nn.ChannelShuffle),
    *across_channels.NATIVES,
    (("stochastic_depth",), _stochastic_depth),
    ((torch.flatten, "flatten"), lambda start_dim=0, end_dim=-1: nn.Flatten(start_dim, end_dim)),
    ((torch.unflatten, "unflatten"), nn.Unflatten),
    ((torch.mean, "mean"), _over_pixels(average)),
    ((torch.amax, "amax"), _over_pixels(maximum)),
    ((torch.sum, "sum"), _over_pixels(total)),
    ((torch.cat, torch.concat), _concatenate),
    ((broadcast_like,), lambda: broadcast_like),
    ((attend,), partial(partial, attend)),
    ((resize_like,), _resize_like),
    (("contiguous", "clone", torch.clone), nn.Identity),
]


def _constructor(function: Any) -> Callable[..., Any] | None:
    name = str(getattr(function, "__name__", function))
    names = function, name
    constructor = next((each for functions, each in _NATIVES if any(each in functions for each in names)), None)
    if constructor is None and name.endswith("_") and hasattr(F, name):
        return _constructor(getattr(F, name.removesuffix("_")))  # in its place: see `take_changed`
    return constructor


def is_known_function(function: Any) -> bool:
    """Whether `native_of` knows a function."""
    return _constructor(function) is not None


def native_of(function: Any, *args: Any, rank: int = 2, **kwargs: Any) -> Any:
    """A module or a function of one tensor, or of several to join, that computes a function of PyTorch's.

    Args:
        function: a function, or the name of a tensor's method.
        *args: its arguments beside the tensors.
        rank: how many axes the tensors have beside those of images and channels.
        **kwargs: its arguments by their names.

    Raises:
        UnsupportedError: none is known.
    """
    constructor = _constructor(function)
    if constructor is None:
        raise UnsupportedError("convlab doesn't know it")
    if constructor in (_pad, _concatenate) or hasattr(constructor, "ranked"):
        kwargs["rank"] = rank
    try:
        return constructor(*args, **kwargs)
    except TypeError as error:
        raise UnsupportedError(f"its arguments are unknown ({error})") from error
