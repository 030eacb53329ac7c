"""Flax's linen layers, read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from convlab.errors import ModelError, UnsupportedError
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Layer
from convlab.models.layers.reading import Model, Part, known, loose_array, loose_code, unbuilt

from ..layers import Conv2D, spec_of
from ..ops import ops
from ..shared.read import check_dtype, computed, read_alone, read_convolution, read_dropout, read_function
from .sequential import Sequential


def read(model: Any, inputs: Any = None) -> Model:
    """See `convlab.models.adapters.Models`."""
    if not isinstance(model, nn.Module):
        return read_alone(model, "jax")
    if model.scope is None:
        raise ModelError(
            f"model: got a {type(model).__name__} without its variables, expected both.",
            hint="(module, variables), or module.bind(variables).",
        )
    if isinstance(model, nn.Sequential) and type(model).__call__ in _CHAINS:
        sequence = list(_sequence(model, ""))
        whole = all(whole for _, whole in sequence)
        parts = [part for part, _ in sequence]
        return Model("jax", parts, whole, model, loose={} if whole else _loose(model, parts, ()))
    if isinstance(model, tuple(_READERS)):
        return Model("jax", [Part("", model, *_read(model, ""))], True, model)
    parts, operations = _called(model, inputs)
    return Model("jax", parts, False, model, loose=_loose(model, parts, operations))


def _loose(model: nn.Module, parts: Sequence[Part], operations: Sequence[str]) -> dict[str, str]:
    """Variables and operations that belong to no known layer."""
    known_paths = [tuple(part.path.split("/")) for part in parts if part.layer is not None]
    loose = {}
    for collection, tree in model.unbind()[1].items():
        for path, array in flax.traverse_util.flatten_dict(tree).items():  # type: ignore[no-untyped-call]
            if not any(path[: len(inside)] == inside for inside in known_paths):
                loose["/".join(path)] = loose_array(f"variable in {collection}", np.shape(array))
    return {**loose, "__call__()": loose_code(model, "__call__", operations)}


def _sequence(model: nn.Sequential, prefix: str) -> Iterator[tuple[Part, bool]]:
    """A Sequential's parts, and whether each is one layer."""
    for index, layer in enumerate(model.layers):
        path = f"{prefix}{getattr(layer, 'name', None) or f'layers_{index}'}"
        if isinstance(layer, nn.Sequential) and type(layer).__call__ in _CHAINS:
            yield from _sequence(layer, f"{path}/")
        elif isinstance(layer, nn.Module):
            yield Part(path, _alone(layer), *_read(layer, path)), isinstance(layer, tuple(_READERS))
        else:
            yield Part(path, layer, *read_function(layer)), True


_CHAINS = (nn.Sequential.__call__, Sequential.__call__)


def _alone(layer: nn.Module) -> nn.Module:
    module, variables = layer.unbind()
    return module.bind(variables)


def _called(model: nn.Module, inputs: Any) -> tuple[list[Part], list[str]]:
    """The layers that a module calls, in order, each once; and the operations that it calls between them."""
    if inputs is None:
        raise ModelError(
            f"model: got a {type(model).__name__}, whose layers show only when it runs.",
            hint="give inputs=, an image it takes, (N, C, H, W).",
        )
    module, variables = model.unbind()
    parts: dict[tuple[str, ...], Part] = {}

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        inner = context.module
        if inner.path not in parts and context.method_name == "__call__":
            path = "/".join(inner.path)
            below = {name: _under(tree, inner.path) for name, tree in variables.items()}
            alone = inner.clone(parent=None, name=None).bind({name: tree for name, tree in below.items() if tree})
            parts[inner.path] = Part(path, alone, *_read(alone, path))
        with jax.named_scope(_LEAF) if isinstance(inner, tuple(_READERS)) else contextlib.nullcontext():
            return call(*args, **kwargs)

    x = np.moveaxis(np.asarray(inputs, np.float32), 1, -1)
    with nn.intercept_methods(record):
        keys = {name: jax.random.key(0) for name in ("params", "dropout")}
        try:
            traced = jax.make_jaxpr(lambda v, x: module.apply(v, x, mutable=True, rngs=keys))(variables, x)
        except Exception as error:  # the module's own code may raise anything
            why = (str(error).strip().splitlines() or [""])[0][:300]
            raise ModelError(
                f"model: it can't be run on inputs of shape {np.shape(inputs)} ({type(error).__name__}: {why}).",
                hint="give what it takes; other arguments than the image need defaults.",
            ) from error
    outer = {path[:length] for path in parts for length in range(len(path))}
    return [part for path, part in parts.items() if path not in outer], [*_between(traced.jaxpr)]


_LEAF = "convlab_known_layer"


def _between(jaxpr: Any) -> Iterator[str]:
    """The operations of a traced module outside of the layers that convlab knows."""
    for equation in jaxpr.eqns:
        if _LEAF in str(equation.source_info.name_stack):
            continue
        inner = equation.params.get("jaxpr")
        name = str(equation.params.get("name", equation.primitive.name))
        if inner is not None and name in ("pjit", "jit", "core_call", "__call__"):
            yield from _between(getattr(inner, "jaxpr", inner))
        else:
            yield name


def _under(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name, {})
    return tree


def _read(layer: nn.Module, path: str) -> tuple[Layer | None, str]:
    try:
        return known(layer, _READERS, "__call__")
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
    nn.BatchNorm: _batch_norm,
    nn.Dense: _dense,
    nn.Dropout: read_dropout,
}
