"""Flax's nnx layers, read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from flax import nnx
from jax import Array

from convlab.errors import UnsupportedError
from convlab.models.adapters import free_name
from convlab.models.layers.activations import PReLU
from convlab.models.layers.arguments import arguments_needed
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Layer
from convlab.models.layers.norms import ChannelAffine as ChannelAffineLayer
from convlab.models.layers.reading import Model, Part, known, loose_array, loose_code

from ..nnx import Conv2D
from ..ops import ops
from ..shared.graph import Traced, loose_calls, traced
from ..shared.program import code_of, layer_call
from ..shared.read import (
    check_dtype,
    computed,
    of_its_rank,
    read_alone,
    read_convolution,
    read_dropout,
    read_function,
    read_norm,
    read_rms_norm,
    read_transposed,
    traced_model,
)
from . import attention
from .affine import ChannelAffine, ChannelPReLU
from .inference import in_inference
from .network import Network


def read(model: nnx.Module, inputs: Any = None) -> Model:
    """See `convlab.models.adapters.Models`."""
    return of_its_rank(_read_model(model, inputs))


def _read_model(model: nnx.Module, inputs: Any) -> Model:
    if not isinstance(model, nnx.Module):
        return read_alone(model, "jax.nnx")
    if is_known(model) and not attention.takes_tokens(model):
        return Model("jax.nnx", [Part("", model, *_read(model))], True, model)
    if isinstance(model, Network):
        return Model("jax.nnx", [*_nodes(model)], True, model, inputs=dict.fromkeys(model.inputs))
    if type(model) is nnx.Sequential:
        sequence = list(_sequence(model, "", ""))
        if all(whole for _, whole in sequence):
            return Model("jax.nnx", [part for part, _ in sequence], True, model)
    trace, unknown = _traced(model, inputs)
    loose = _loose(model, trace.parts, set()) if unknown else _loose(model, trace.parts, trace.used) | trace.computed
    return traced_model("jax.nnx", model, trace, unknown, loose)


def _loose(model: nnx.Module, parts: Sequence[Part], used: set[str]) -> dict[str, str]:
    """Variables that belong to no known layer, and aren't used otherwise."""
    known_paths = [part.path for part in parts if part.layer is not None]
    loose = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState))):
        name = "/".join(map(str, path))
        if name not in used and not any(name.startswith(f"{inside}/") for inside in known_paths):
            loose[name] = loose_array(type(variable).__name__, np.shape(variable[...]))
    return loose


def _nodes(model: Network) -> Iterator[Part]:
    """The parts of a graph that `build` made."""
    for name, native, inputs, value in model.nodes():
        described = _read(native) if isinstance(native, nnx.Module) else read_function(native)
        yield Part(free_name(name, Network).replace(".", "/"), native, *described, inputs, value, name)


def _traced(model: nnx.Module, inputs: Any) -> tuple[Traced, dict[str, str]]:
    """The parts of a module with a `__call__` of its own, and what of its code isn't known: see `traced`."""
    modules = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(model)}

    def seen(path: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if _is_layer(modules[path]):
            dense = isinstance(modules[path], nnx.Linear)  # what others are is read behind the trace
            return layer_call(layer(path) if dense else Part(path, None, None), call, args, kwargs)
        with code_of(path):
            return call(*args, **kwargs)

    def layer(path: str) -> Part:
        return Part(path, attention.of_pixels(modules[path]), *_read(modules[path]))

    state = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))
    weights = {"/".join(map(str, path)): variable[...] for path, variable in state}
    try:
        names = arguments_needed(model.__call__) if callable(model) else []
        trace = traced(in_inference(model, seen), layer, inputs, weights, names or ["x"])
    except UnsupportedError as error:
        parts = [layer(path) for path, module in modules.items() if is_known(module)]
        return Traced(parts, {}, set(), {}), {
            "__call__()": f"{loose_code(model, '__call__')}: {str(error).rstrip('.')}"
        }
    return trace, loose_calls(modules, trace.unknown)


def is_known(module: Any) -> bool:
    """Whether a module is of a class that convlab reads."""
    return isinstance(module, tuple(_READERS))


def _is_layer(module: nnx.Module) -> bool:
    """Whether a module is read as a whole: convlab's, or one of nnx's that isn't made of others."""
    inside = type(module) in (nnx.Sequential, nnx.Embed)  # an embedding of numbers that are known is an array
    return is_known(module) or (type(module).__module__.startswith("flax.nnx") and not inside)


def _sequence(model: nnx.Sequential, prefix: str, outer: str) -> Iterator[tuple[Part, bool]]:
    """A Sequential's parts, and whether each is one layer; `outer` are the numbers of what it is in."""
    for index, layer in enumerate(model.layers):
        path, name = f"{prefix}layers/{index}", f"{outer}{index}"
        if type(layer) is nnx.Sequential:
            yield from _sequence(layer, f"{path}/", f"{name}.")
        elif isinstance(layer, nnx.Module):
            yield Part(path, layer, *_read(layer), name=name), is_known(layer) and not attention.takes_tokens(layer)
        else:
            yield Part(path, layer, *read_function(layer), name=name), True


def _read(layer: nnx.Module) -> tuple[Layer | None, str]:
    return known(layer, _READERS, "__call__")


def _array(variable: Any) -> np.ndarray | None:
    return None if variable is None else ops.to_numpy(variable[...])


def _value(variable: Any) -> Array | None:
    return None if variable is None else variable[...]


def _norm(layer: Any, groups: int | None) -> Layer:
    return read_norm(layer, _value(layer.scale), _value(layer.bias), groups, getattr(layer, "num_features", 0))


def _channel_affine(layer: ChannelAffine) -> Layer:
    scale, bias = _array(layer.scale), _array(layer.bias)
    numbers = _value(layer.bias) if layer.scale is None else _value(layer.scale)
    return ChannelAffineLayer(scale, bias, layer.trained, ops.dtype(numbers))


def _prelu(layer: nnx.PReLU | ChannelPReLU) -> Layer:
    slope = ops.to_numpy(layer.negative_slope[...])
    return PReLU(slope.reshape(-1), str(slope.dtype))


def _batch_norm(layer: nnx.BatchNorm) -> Layer:
    if layer.axis not in (-1, 3):
        raise UnsupportedError(f"it normalises axis {layer.axis}, which isn't that of the channels")
    check_dtype(layer, layer.mean[...])
    mean, variance = ops.to_numpy(layer.mean[...]), ops.to_numpy(layer.var[...])
    scale, shift = _array(layer.scale), _array(layer.bias)
    return BatchNorm(
        mean,
        variance,
        np.ones_like(mean) if scale is None else scale,
        np.zeros_like(mean) if shift is None else shift,
        layer.epsilon,
        layer.momentum,
        ops.dtype(layer.mean[...]),
    )


def _dense(layer: nnx.Linear) -> Layer:
    dtype, (kernel, bias) = computed(layer, layer.kernel[...], _value(layer.bias))
    return Dense(kernel.T, bias, dtype)


def _ours(layer: Conv2D) -> Layer:
    dtype, (weight, bias) = computed(layer, layer.weight[...], _value(layer.bias))
    return Convolution.ours(layer.spec, weight, bias, dtype)


_READERS: dict[type, Callable[[Any], Layer]] = {
    Conv2D: _ours,
    nnx.Conv: lambda layer: read_convolution(layer, layer.kernel[...], _value(layer.bias)),
    nnx.ConvTranspose: lambda layer: read_transposed(layer, layer.kernel[...], _value(layer.bias)),
    nnx.BatchNorm: _batch_norm,
    nnx.GroupNorm: lambda layer: _norm(layer, layer.num_groups),
    nnx.InstanceNorm: lambda layer: _norm(layer, 0),
    nnx.RMSNorm: lambda layer: read_rms_norm(layer, _value(layer.scale), getattr(layer, "num_features", 0)),
    nnx.LayerNorm: lambda layer: _norm(layer, None),
    ChannelAffine: _channel_affine,
    **dict.fromkeys((nnx.PReLU, ChannelPReLU), _prelu),
    nnx.Linear: _dense,
    nnx.Dropout: read_dropout,
    **attention.READERS,
}
