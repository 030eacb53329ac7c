"""Flax's linen layers, read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from jax import Array

from convlab.errors import ModelError, UnsupportedError
from convlab.models.layers.activations import PReLU
from convlab.models.layers.arguments import arguments_needed
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Layer
from convlab.models.layers.norms import ChannelAffine as ChannelAffineLayer
from convlab.models.layers.reading import Model, Part, known, loose_array, replaces, unbuilt

from ..layers import Conv2D, spec_of
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
from .network import Network, key_of
from .run import infer
from .sequential import Sequential


def read(model: Any, inputs: Any = None) -> Model:
    """See `convlab.models.adapters.Models`."""
    return of_its_rank(_read_model(model, inputs))


def _read_model(model: Any, inputs: Any) -> Model:
    if not isinstance(model, nn.Module):
        return read_alone(model, "jax")
    if model.scope is None:
        raise ModelError(
            f"model: got a {type(model).__name__} without its variables, expected both.",
            hint="(module, variables), or module.bind(variables).",
        )
    if _is_known(model):
        return Model("jax", [Part("", model, *_read(model, ""))], True, model)
    if isinstance(model, Network):
        return Model("jax", [*_nodes(model)], True, model, inputs=dict.fromkeys(model.graph.inputs))
    if isinstance(model, nn.Sequential) and type(model).__call__ in _CHAINS:
        sequence = list(_sequence(model, "", ""))
        if all(whole for _, whole in sequence):
            return Model("jax", [part for part, _ in sequence], True, model)
    trace, unknown = _traced(model, inputs)
    loose = _loose(model, trace.parts, set()) if unknown else _loose(model, trace.parts, trace.used) | trace.computed
    return traced_model("jax", model, trace, unknown, loose)


def _loose(model: nn.Module, parts: Sequence[Part], used: set[str]) -> dict[str, str]:
    """Variables that belong to no known layer, and aren't used otherwise."""
    known_paths = [tuple(part.path.split("/")) for part in parts if part.layer is not None]
    loose = {}
    for collection, tree in model.unbind()[1].items():
        for path, array in flax.traverse_util.flatten_dict(tree).items():  # type: ignore[no-untyped-call]
            if "/".join(path) not in used and not any(path[: len(inside)] == inside for inside in known_paths):
                loose["/".join(path)] = loose_array(f"variable in {collection}", np.shape(array))
    return loose


def _nodes(model: Network) -> Iterator[Part]:
    """The parts of a graph that `build` made."""
    _, variables = model.unbind()
    for name, native, inputs, value in model.graph.nodes:
        key = key_of(name)
        if isinstance(native, nn.Module):
            native = native.bind({kind: tree[key] for kind, tree in variables.items() if key in tree})
            yield Part(key, native, *_read(native, key), inputs, value, name)
        else:
            yield Part(key, native, *read_function(native), inputs, value, name)


def _sequence(model: nn.Sequential, prefix: str, outer: str) -> Iterator[tuple[Part, bool]]:
    """A Sequential's parts, and whether each is one layer; `outer` are the numbers of what it is in."""
    for index, layer in enumerate(model.layers):
        own = getattr(layer, "name", None) or f"layers_{index}"
        path, name = f"{prefix}{own}", f"{outer}{own.removeprefix('layers_')}"
        if isinstance(layer, nn.Sequential) and type(layer).__call__ in _CHAINS:
            yield from _sequence(layer, f"{path}/", f"{name}.")
        elif isinstance(layer, nn.Module):
            yield Part(path, _alone(layer), *_read(layer, path), name=name), _is_known(layer)
        else:
            yield Part(path, layer, *read_function(layer), name=name), True


def _is_known(layer: nn.Module) -> bool:
    """Whether a layer is read without a look at what it takes."""
    return isinstance(layer, tuple(_READERS)) and not attention.takes_tokens(layer)


_CHAINS = (nn.Sequential.__call__, Sequential.__call__)


def _alone(layer: nn.Module) -> nn.Module:
    module, variables = layer.unbind()
    return module.bind(variables)


def _traced(model: nn.Module, inputs: Any) -> tuple[Traced, dict[str, str]]:
    """The parts of a module with a `__call__` of its own, and what of its code isn't known: see `traced`."""
    module, variables = model.unbind()
    layers: dict[str, Part] = {}
    others: dict[str, nn.Module] = {"": module}

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        inner, path = context.module, "/".join(context.module.path)
        if not _is_layer(inner) or context.method_name != "__call__":
            others[path] = inner
            with code_of(path):
                return call(*args, **kwargs)
        if path not in layers:
            below = {name: _under(tree, inner.path) for name, tree in variables.items()}
            alone = inner.clone(parent=None, name=None).bind({name: tree for name, tree in below.items() if tree})
            layers[path] = Part(path, attention.of_pixels(alone), *_read(alone, path))
        return layer_call(layers[path], call, args, kwargs)

    def called(*values: Array) -> Any:
        keys = {name: jax.random.key(0) for name in ("params", "dropout")}
        with nn.intercept_methods(infer), nn.intercept_methods(record):
            return module.apply(variables, *values, mutable=True, rngs=keys)[0]

    try:
        names = arguments_needed(module.__call__) or ["x"]
        trace = traced(called, layers.__getitem__, inputs, _arrays(variables), names)
    except UnsupportedError as error:
        hint = "give inputs=, an image it takes, (N, C, H, W)" if inputs is None else "give what it takes"
        raise ModelError(
            f"model: {str(error).rstrip('.')}.", hint=f"{hint}; other arguments than the image need defaults."
        ) from error
    return trace, loose_calls(others, trace.unknown)


def _arrays(variables: Any) -> dict[str, Array]:
    """All arrays by their paths, without the names of their collections."""
    flat = (flax.traverse_util.flatten_dict(tree) for tree in variables.values())  # type: ignore[no-untyped-call]
    return {"/".join(path): array for tree in flat for path, array in tree.items()}


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is read as a whole: convlab's, or one of linen's that isn't made of others."""
    ours = isinstance(module, tuple(_READERS)) and not replaces(module, nn.Module, "param")
    inside = isinstance(module, (nn.Sequential, nn.Embed))  # an embedding of numbers that are known is an array
    return ours or (type(module).__module__.startswith("flax.linen") and not inside)


def _under(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name, {})
    return tree


def _read(layer: nn.Module, path: str) -> tuple[Layer | None, str]:
    try:
        return known(layer, _READERS, "__call__", "param")
    except KeyError as error:
        raise unbuilt(path, layer, "bind the module to all of its variables") from error


def _values(layer: nn.Module, collection: str = "params") -> dict[str, Any]:
    return dict(layer.variables[collection])


def _convolution(layer: nn.Conv) -> Layer:
    values = _values(layer)
    return read_convolution(layer, values["kernel"], values.get("bias"))


def _ours(layer: Conv2D) -> Layer:
    values = _values(layer)
    dtype, (weight, bias) = computed(layer, values["weight"], values.get("bias"))
    return Convolution.ours(spec_of(layer), weight, bias, dtype)


def _transposed(layer: nn.ConvTranspose) -> Layer:
    values = _values(layer)
    return read_transposed(layer, values["kernel"], values.get("bias"))


def _scale_and_bias(layer: nn.Module) -> tuple[Any, Any]:
    values = layer.variables.get("params", {})
    return values.get("scale"), values.get("bias")


def _group_norm(layer: nn.GroupNorm) -> Layer:
    scale, bias = _scale_and_bias(layer)
    given = scale if bias is None else bias
    groups = layer.num_groups or (0 if given is None else len(given) // (layer.group_size or 1))
    return read_norm(layer, scale, bias, groups)


def _channel_affine(layer: ChannelAffine) -> Layer:
    values = layer.variables["params" if layer.trained else "constants"]
    arrays = [ops.to_numpy(values[name]) if name in values else None for name in ("scale", "bias")]
    return ChannelAffineLayer(arrays[0], arrays[1], layer.trained, str(np.dtype(layer.param_dtype).name))


def _prelu(layer: nn.PReLU | ChannelPReLU) -> Layer:
    slope = ops.to_numpy(_values(layer)["negative_slope"])
    return PReLU(slope.reshape(-1), str(slope.dtype))


def _batch_norm(layer: nn.BatchNorm) -> Layer:
    statistics, values = _values(layer, "batch_stats"), layer.variables.get("params", {})
    if layer.axis not in (-1, 3):
        raise UnsupportedError(f"it normalises axis {layer.axis}, which isn't that of the channels")
    check_dtype(layer, statistics["mean"])
    mean, variance = (ops.to_numpy(statistics[name]) for name in ("mean", "var"))
    scale = ops.to_numpy(values["scale"]) if layer.use_scale else np.ones_like(mean)
    shift = ops.to_numpy(values["bias"]) if layer.use_bias else np.zeros_like(mean)
    return BatchNorm(mean, variance, scale, shift, layer.epsilon, layer.momentum, ops.dtype(statistics["mean"]))


def _dense(layer: nn.Dense) -> Layer:
    values = _values(layer)
    dtype, (kernel, bias) = computed(layer, values["kernel"], values.get("bias"))
    return Dense(kernel.T, bias, dtype)


_READERS: dict[type, Callable[[Any], Layer]] = {
    Conv2D: _ours,
    nn.Conv: _convolution,
    nn.ConvTranspose: _transposed,
    nn.BatchNorm: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.InstanceNorm: lambda layer: read_norm(layer, *_scale_and_bias(layer), 0),
    nn.RMSNorm: lambda layer: read_rms_norm(layer, _scale_and_bias(layer)[0]),
    nn.LayerNorm: lambda layer: read_norm(layer, *_scale_and_bias(layer), None),
    ChannelAffine: _channel_affine,
    **dict.fromkeys((nn.PReLU, ChannelPReLU), _prelu),
    nn.Dense: _dense,
    nn.Dropout: read_dropout,
    **attention.READERS,
}
