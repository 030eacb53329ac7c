"""Gluon's layers, read and built: see `convlab.models`."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from convlab.contract.layer import LayerSpec
from convlab.errors import ModelError, UnsupportedError
from convlab.geometry.geometry import NO_PADDING, Pads
from convlab.models.adapters import ROLES
from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import (
    LOWEST,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    Layer,
    Pad,
    depends_on_size,
)
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import Model, is_around

from .layers import Conv2D
from .ops import mx, ops
from .reading import ACTIVATIONS, MODES, Block, Pad2D, ReLU6, nn, read, rounds_alike, value_of

__all__ = [
    "BUILTIN",
    "FILES",
    "LAYOUT",
    "SAME",
    "assemble",
    "build",
    "fill",
    "gradients",
    "load",
    "read",
    "run",
    "save",
    "weights",
    "with_weights",
]

BUILTIN = True
SAME = False  # whether its convolution pads by the image's size
LAYOUT = "NCHW"
FILES = (".params",)

_OURS = 'layers="convlab" has it.'


def build(layer: Layer, style: str) -> list[Block]:
    """See `convlab.models.adapters`. Parameters are `mx.np` arrays where `npx.set_np()` holds, otherwise `mx.nd`."""
    return _BUILDERS[type(layer)](layer, style)


def _filled(block: Block, dtype: str, **arrays: np.ndarray | None) -> Block:
    block.cast(dtype)
    block.initialize(mx.init.Zero())  # which draws nothing
    for name, array in arrays.items():
        if array is not None:
            getattr(block, name).set_data(_tensor(array, dtype, mx.util.is_np_array()))
    return block


def _tensor(array: np.ndarray, dtype: str, numpy: bool, ctx: Any = None) -> Any:
    return (mx.np if numpy else mx.nd).array(np.ascontiguousarray(array), dtype=dtype, ctx=ctx)


def _check_dtype(dtype: str, what: str = "convolution") -> None:
    if dtype not in ("float32", "float64"):
        hint = _OURS if (what, dtype) == ("convolution", "float16") else "float32 holds the same numbers."
        raise UnsupportedError(f"MXNet has no {what} in {dtype} on CPUs.", hint=hint)


def _build_convolution(layer: Convolution, style: str) -> list[Block]:
    spec = layer.spec
    if style == "convlab":
        options, weight = layer.ours_for("NCHW")
        return [_filled(Conv2D(**options), spec.dtype, weight=weight, bias=layer.bias)]
    _check_dtype(spec.dtype)
    pads, before = _pads(spec, "convolution"), []
    if not is_around(pads) or (spec.padding_mode != "zeros" and pads != NO_PADDING):
        before, pads = _build_pad(Pad(pads, spec.padding_mode), style), NO_PADDING
    conv = nn.Conv2D(
        spec.out_channels,
        spec.kernel_size,
        spec.stride,
        tuple(each for each, _ in pads),
        spec.dilation,
        spec.groups,
        use_bias=spec.use_bias,
        in_channels=spec.in_channels,
    )
    return [*before, _filled(conv, spec.dtype, weight=layer.kernel, bias=layer.bias)]


def _pads(spec: LayerSpec, what: str) -> Pads:
    if isinstance(spec.padding, str):
        raise depends_on_size(spec.padding)
    return spec.padding


def _build_pad(layer: Pad, style: str) -> list[Block]:
    if layer.mode == LOWEST:
        return [Pad2D(layer.pads, value=-math.inf)]
    if layer.mode not in MODES:
        raise UnsupportedError(f"MXNet pads with zeros, reflect or replicate, not {layer.mode}.", hint=_OURS)
    return [Pad2D(layer.pads, MODES[layer.mode])]


def _build_pool(layer: Pool, style: str) -> list[Block]:
    pads = _pads(LayerSpec(layer.size, stride=layer.stride, padding=layer.padding), "pooling")
    if not is_around(pads):
        raise UnsupportedError(f"MXNet's pooling has no padding {pads}.", hint="pad before it.")
    if layer.ceil and not rounds_alike(layer):
        raise UnsupportedError("MXNet's ceil_mode begins windows beyond the image, this pooling doesn't.")
    padding = tuple(each for each, _ in pads)
    if layer.function == "max":
        return [nn.MaxPool2D(layer.size, layer.stride, padding, ceil_mode=layer.ceil)]
    counted = {"count_include_pad": layer.count_padding}
    return [nn.AvgPool2D(layer.size, layer.stride, padding, ceil_mode=layer.ceil, **counted)]


def _build_global_pool(layer: GlobalPool, style: str) -> list[Block]:
    pool = nn.GlobalMaxPool2D() if layer.function == "max" else nn.GlobalAvgPool2D()
    return [pool] if layer.keepdims else [pool, nn.Flatten()]


def _build_batch_norm(layer: BatchNorm, style: str) -> list[Block]:
    _check_dtype(layer.dtype, "batch normalisation")
    norm = nn.BatchNorm(momentum=layer.momentum, epsilon=layer.epsilon, in_channels=len(layer.mean))
    arrays = {"running_mean": layer.mean, "running_var": layer.variance, "gamma": layer.scale, "beta": layer.shift}
    return [_filled(norm, layer.dtype, **arrays)]


def _build_flatten(layer: Flatten, style: str) -> list[Block]:
    if layer.order != "CHW":
        raise UnsupportedError("MXNet flattens images channel by channel, this one pixel by pixel.")
    return [nn.Flatten()]


def _build_dense(layer: Dense, style: str) -> list[Block]:
    _check_dtype(layer.dtype, "dense layer")
    outputs, inputs = layer.kernel.shape
    dense = nn.Dense(outputs, use_bias=layer.bias is not None, flatten=False, in_units=inputs)
    return [_filled(dense, layer.dtype, weight=layer.kernel, bias=layer.bias)]


def _build_activation(layer: Activation, style: str) -> list[Block]:
    made: dict[str, Callable[[], Block]] = {
        "relu6": ReLU6,
        "leaky_relu": lambda: nn.LeakyReLU(layer.parameter),
        "elu": lambda: nn.ELU(layer.parameter),
        "gelu": nn.GELU,
        "silu": nn.Swish,
        **{ours: partial(nn.Activation, theirs) for theirs, ours in ACTIVATIONS.items()},
    }
    if layer.function not in made or (layer.function == "leaky_relu" and layer.parameter < 0):
        raise UnsupportedError(f"MXNet has no {layer.function} with parameter {layer.parameter}.")
    return [made[layer.function]()]


_BUILDERS: dict[type[Layer], Callable[[Any, str], list[Block]]] = {
    Convolution: _build_convolution,
    Pad: _build_pad,
    Pool: _build_pool,
    GlobalPool: _build_global_pool,
    BatchNorm: _build_batch_norm,
    Dropout: lambda layer, style: [nn.Dropout(layer.rate)],
    Flatten: _build_flatten,
    Dense: _build_dense,
    Activation: _build_activation,
}


def assemble(steps: Sequence[tuple[str, Block]]) -> Block:
    """See `convlab.models.adapters`."""
    net = nn.HybridSequential()
    for name, native in steps:
        net.register_child(
            native, next(each for n in count() if (each := f"{name}_{n}" if n else name) not in net._children)
        )
    return net


@contextlib.contextmanager
def _mode(natives: Sequence[Block]) -> Iterator[tuple[bool, Any]]:
    """MXNet's semantics for natives, `mx.np`'s or `mx.nd`'s, as their parameters are; whether it is the first, and
    their context.
    """
    values = [value_of(each) for native in natives for each in native.collect_params().values()]
    numpy = any(isinstance(value, mx.np.ndarray) for value in values)
    array, shape = mx.util.np_array(numpy), mx.util.np_shape(numpy)
    first, second = (shape, array) if numpy else (array, shape)  # the first without the second isn't allowed
    with first, second:
        yield numpy, values[0].ctx if values else mx.cpu()


def _check_run(natives: Sequence[Block], dtype: str, ctx: Any) -> None:
    for native in natives:
        kind = {nn.Conv2D: "convolution", nn.Dense: "dense layer"}.get(type(native))
        if dtype == "bfloat16" or (kind and ctx.device_type == "cpu"):
            _check_dtype(dtype, kind or "layer")


def _through(natives: Sequence[Block], x: Any, leaves: dict[str, Any] | None = None) -> Any:
    """The natives one after another; the convolution among them with other parameters, if they are given."""
    for native in natives:
        nhwc = isinstance(native, Conv2D) and native.spec.data_format == "NHWC"
        x = x.transpose((0, 2, 3, 1)) if nhwc else x
        x = native.hybrid_forward(mx.nd, x, **leaves) if leaves and _convolves(native) else native(x)
        x = x.transpose((0, 3, 1, 2)) if nhwc else x
    return x


def _convolves(native: Block) -> bool:
    return isinstance(native, (Conv2D, nn.Conv2D))


def run(natives: Sequence[Block], x: np.ndarray, dtype: str) -> np.ndarray:
    """See `convlab.models.adapters`."""
    with _mode(natives) as (numpy, ctx), mx.autograd.pause(train_mode=False):
        _check_run(natives, dtype, ctx)
        return ops.to_numpy(_through(natives, _tensor(x, dtype, numpy, ctx)))


def gradients(natives: Sequence[Block], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`."""
    owner = next((each for each in natives if _convolves(each)), None)
    with _mode(natives) as (numpy, ctx):
        _check_run(natives, dtype, ctx)
        named = {name: value_of(each) for name, each in (owner._reg_params if owner else {}).items()}
        leaves = {name: each.copy() for name, each in named.items()}
        inputs = {"X": _tensor(x, dtype, numpy, ctx), **leaves}
        for each in inputs.values():
            each.attach_grad()
        with mx.autograd.record(train_mode=False):
            y = _through(natives, inputs["X"], leaves)
        y.backward(_tensor(dy, dtype, numpy, ctx), train_mode=False)
        found = {name: ops.to_numpy(each.grad) for name, each in inputs.items()}
    if isinstance(owner, Conv2D):
        found["weight"] = Convolution.ours(owner.spec, found["weight"], None, dtype).kernel
    return {ROLES.get(name, name): each for name, each in found.items()}


def fill(model: Model, layers: Mapping[str, Layer]) -> Block:
    """See `convlab.models.adapters`."""
    other = _copy(model.native)
    with _mode([model.native]) as (numpy, ctx):
        for part in read(other).parts:
            for name, array in _arrays(part.native, layers.get(part.path)).items():
                parameter = part.native._reg_params[name]
                parameter.set_data(_tensor(array.reshape(parameter.shape), np.dtype(parameter.dtype).name, numpy, ctx))
    return other


def _arrays(native: Any, layer: Any) -> dict[str, np.ndarray]:
    """A layer's arrays by the names and in the layout that a block has them; none for another part of its path."""
    if layer is None or not getattr(native, "_reg_params", None):
        return {}
    if isinstance(layer, BatchNorm):
        return {"gamma": layer.scale, "beta": layer.shift, "running_mean": layer.mean, "running_var": layer.variance}
    ours = isinstance(native, Conv2D)
    arrays = {"weight": layer.ours_for(native.spec.data_format)[1] if ours else layer.kernel}
    return arrays if layer.bias is None else arrays | {"bias": layer.bias}


def weights(model: Block) -> dict[str, Any]:
    """See `convlab.models.adapters`."""
    return {name: value_of(each) for name, each in model._collect_params_with_prefix().items()}


def with_weights(model: Block, weights: Any) -> Block:
    """See `convlab.models.adapters`."""
    other = _copy(model)
    if strange := set(weights) - set(other._collect_params_with_prefix()):
        raise ModelError(
            f"weights: {', '.join(sorted(strange))} aren't in the model.", hint="they are another model's."
        )
    with _mode([model]) as (numpy, _):
        for name, parameter in other._collect_params_with_prefix().items():
            value = weights[name]
            parameter.set_data(value.as_np_ndarray() if numpy else value.as_nd_ndarray())
    return other


def _copy(block: Block) -> Block:
    """A deep copy; what hybridizing has compiled can't be copied and is compiled again."""
    blocks: list[Block] = []
    block.apply(blocks.append)
    compiled = [{name: vars(each)[name] for name in _COMPILED if name in vars(each)} for each in blocks]
    try:
        for each, found in zip(blocks, compiled, strict=True):
            vars(each).update({name: _COMPILED[name] for name in found})
        return copy.deepcopy(block)
    finally:
        for each, found in zip(blocks, compiled, strict=True):
            vars(each).update(found)


_COMPILED: dict[str, Any] = {"_cached_op": None, "_cached_graph": ()}


def save(model: Block, path: Path) -> None:
    """See `convlab.models.adapters`."""
    with _mode([model]):
        model.save_parameters(str(path))


def load(path: Path, model: Block) -> dict[str, Any]:
    """See `convlab.models.adapters`."""
    with _mode([model]) as (numpy, _):
        return dict((mx.npx if numpy else mx.nd).load(str(path)))
