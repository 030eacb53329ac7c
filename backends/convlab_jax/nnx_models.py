"""Flax's nnx layers, read and built: see `convlab.models`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Layer
from convlab.models.layers.reading import Model, Part, known, loose_array, loose_code

from . import functions, models
from .nnx import Conv2D
from .ops import ops

BUILTIN, SAME, LAYOUT, FILES = models.BUILTIN, models.SAME, models.LAYOUT, models.FILES


def read(model: nnx.Module, inputs: Any = None) -> Model:
    """See `convlab.models.adapters`."""
    if not isinstance(model, nnx.Module):
        return functions.read_alone(model, "jax.nnx")
    if type(model) is nnx.Sequential:
        sequence = list(_sequence(model, ""))
        parts, whole = [part for part, _ in sequence], all(whole for _, whole in sequence)
        return Model("jax.nnx", parts, whole, model, loose={} if whole else _loose(model, parts))
    if isinstance(model, tuple(_READERS)):
        return Model("jax.nnx", [Part("", model, *_read(model))], True, model)
    parts = [
        Part("/".join(map(str, path)), module, *_read(module))
        for path, module in nnx.iter_modules(model)
        if isinstance(module, tuple(_READERS))
    ]
    return Model("jax.nnx", parts, False, model, loose=_loose(model, parts))


def _loose(model: nnx.Module, parts: Sequence[Part]) -> dict[str, str]:
    """Variables and operations that belong to no known layer."""
    known_paths = [part.path for part in parts if part.layer is not None]
    loose = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState))):
        name = "/".join(map(str, path))
        if not any(name.startswith(f"{inside}/") for inside in known_paths):
            loose[name] = loose_array(type(variable).__name__, np.shape(variable[...]))
    return {**loose, "__call__()": loose_code(model, "__call__")}


def _sequence(model: nnx.Sequential, prefix: str) -> Iterator[tuple[Part, bool]]:
    for index, layer in enumerate(model.layers):
        path = f"{prefix}layers/{index}"
        if type(layer) is nnx.Sequential:
            yield from _sequence(layer, f"{path}/")
        elif isinstance(layer, nnx.Module):
            yield Part(path, layer, *_read(layer)), isinstance(layer, tuple(_READERS))
        else:
            yield Part(path, layer, *functions.read_function(layer)), True


def _read(layer: nnx.Module) -> tuple[Layer | None, str]:
    kind = next((kind for kind in _READERS if isinstance(layer, kind)), None)
    if kind and type(layer).__call__ is not kind.__call__:
        return None, f"{type(layer).__name__}: it is a {kind.__name__} with a __call__ of its own"
    return known(layer, _READERS)


def _array(variable: Any) -> np.ndarray | None:
    return None if variable is None else ops.to_numpy(variable[...])


def _value(variable: Any) -> Array | None:
    return None if variable is None else variable[...]


def _batch_norm(layer: nnx.BatchNorm) -> Layer:
    if layer.axis not in (-1, 3):
        raise UnsupportedError(f"over axis {layer.axis}")
    functions.check_dtype(layer, layer.mean[...])
    mean, variance = (ops.to_numpy(each[...]) for each in (layer.mean, layer.var))
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
    dtype, (kernel, bias) = functions.computed(layer, layer.kernel[...], _value(layer.bias))
    return Dense(kernel.T, bias, dtype)


def _ours(layer: Conv2D) -> Layer:
    weight = layer.weight[...]
    return Convolution.ours(layer.spec, ops.to_numpy(weight), _array(layer.bias), ops.dtype(weight))


_READERS: dict[type, Callable[[Any], Layer]] = {
    Conv2D: _ours,
    nnx.Conv: lambda layer: functions.read_convolution(layer, layer.kernel[...], _value(layer.bias)),
    nnx.BatchNorm: _batch_norm,
    nnx.Linear: _dense,
    nnx.Dropout: lambda layer: Dropout(layer.rate),
}


def build(layer: Layer, style: str) -> list[Any]:
    """See `convlab.models.adapters`."""
    dtype = layer.spec.dtype if isinstance(layer, Convolution) else getattr(layer, "dtype", None)
    with ops.scope(dtype):
        return _build(layer, style)


def _build(layer: Layer, style: str) -> list[Any]:
    rngs = nnx.Rngs(0)
    if isinstance(layer, Convolution):
        return _build_convolution(layer, style)
    if isinstance(layer, BatchNorm):
        norm = nnx.BatchNorm(
            len(layer.mean),
            use_running_average=True,
            momentum=layer.momentum,
            epsilon=layer.epsilon,
            param_dtype=layer.dtype,
            rngs=rngs,
        )
        arrays = {"mean": layer.mean, "var": layer.variance, "scale": layer.scale, "bias": layer.shift}
        return [_filled(norm, layer.dtype, **arrays)]
    if isinstance(layer, Dense):
        outputs, inputs = layer.kernel.shape
        dense = nnx.Linear(inputs, outputs, use_bias=layer.bias is not None, param_dtype=layer.dtype, rngs=rngs)
        return [_filled(dense, layer.dtype, kernel=layer.kernel.T, bias=layer.bias)]
    if isinstance(layer, Dropout):
        return [nnx.Dropout(layer.rate, deterministic=True, rngs=rngs)]
    return [functions.build_function(layer)]


def _filled(module: Any, dtype: str, **arrays: np.ndarray | None) -> Any:
    for name, array in arrays.items():
        if array is not None:
            variable = getattr(module, name)
            setattr(module, name, type(variable)(ops.asarray(array, dtype)))
    return module


def _build_convolution(layer: Convolution, style: str) -> list[Any]:
    dtype = str(layer.spec.dtype)
    if style == "convlab":
        options, weight = layer.ours_for("NHWC")
        ours = Conv2D(**(options | {"seed": 0}))
        return [_filled(ours, dtype, weight=weight, bias=layer.bias)]
    options, border = functions.convolution_options(layer)
    conv = nnx.Conv(layer.spec.in_channels, layer.spec.out_channels, **options, rngs=nnx.Rngs(0))
    filled = _filled(conv, dtype, kernel=layer.kernel.transpose(2, 3, 1, 0), bias=layer.bias)
    return [filled] if border is None else [border, filled]


def assemble(steps: Sequence[tuple[str, Any]]) -> nnx.Module:
    """See `convlab.models.adapters`; nnx numbers the layers."""
    return nnx.Sequential(*(native for _, native in steps))


def run(natives: Sequence[Any], x: np.ndarray, dtype: str) -> np.ndarray:
    """See `convlab.models.adapters`."""
    with ops.scope(dtype):
        forward = functions.once(lambda x: functions.forward(natives, x, _call, _layout))
        return ops.to_numpy(forward(ops.asarray(x, dtype)))


def _call(native: Any, x: Array) -> Array:
    if isinstance(native, nnx.BatchNorm):
        return native(x, use_running_average=True)
    if isinstance(native, nnx.Dropout):
        return native(x, deterministic=True)
    if type(native) is nnx.Sequential:
        for layer in native.layers:
            x = _call(layer, x)
        return x
    if isinstance(native, nnx.Module) and not isinstance(native, tuple(_READERS)):
        native = nnx.clone(native)
        native.eval()
    return native(x)


def _layout(native: Any) -> str:
    if isinstance(native, nnx.Sequential):
        return next((_layout(each) for each in native.layers if isinstance(each, nnx.Module)), LAYOUT)
    return native.spec.data_format if isinstance(native, Conv2D) else LAYOUT


def gradients(natives: Sequence[Any], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`."""
    owner = next((each for each in natives if isinstance(each, (Conv2D, nnx.Conv))), None)
    graph, state = nnx.split(owner, nnx.Param) if owner is not None else (None, {})

    def called(state: Any, x: Array) -> Array:
        def call(native: Any, x: Array) -> Array:
            return nnx.merge(graph, state)(x) if native is owner else _call(native, x)

        return functions.forward(natives, x, call, _layout)

    with ops.scope(dtype):
        pull = functions.once(lambda at, x, dy: jax.vjp(called, at, x)[1](dy))
        found, dx = pull(state, ops.asarray(x, dtype), ops.asarray(dy, dtype))
        named = {name: ops.to_numpy(each[...]) for name, each in found.items()} if owner is not None else {}
    return {"X": ops.to_numpy(dx)} | models.to_oihw(owner, named, dtype)


def fill(model: Model, layers: Mapping[str, Layer]) -> nnx.Module:
    """See `convlab.models.adapters`."""
    other = nnx.clone(model.native)
    natives = {part.path: part.native for part in read(other).parts}
    for path, layer in layers.items():
        for name, array in models.arrays_of(natives[path], layer).items():
            variable = getattr(natives[path], name, None)
            if isinstance(variable, nnx.Variable):
                value = variable[...]
                _filled(natives[path], ops.dtype(value), **{name: array.reshape(value.shape)})
    return other


def weights(model: nnx.Module) -> Any:
    """See `convlab.models.adapters`."""
    return nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState)))


def with_weights(model: nnx.Module, weights: Any) -> nnx.Module:
    """See `convlab.models.adapters`."""
    models.check_alike(globals()["weights"](model), weights)
    other = nnx.clone(model)
    state = nnx.state(other, nnx.Not(nnx.RngState))
    nnx.replace_by_pure_dict(state, weights)
    nnx.update(other, state)
    return other


def save(model: nnx.Module, path: Path) -> None:
    """See `convlab.models.adapters`."""
    models.save_tree(_keyed(weights(model)), path)


def load(path: Path, model: nnx.Module) -> Any:
    """See `convlab.models.adapters`."""
    mine = weights(model)
    return _like(mine, models.load_tree(path, _keyed(mine)))


def _keyed(tree: Any) -> Any:
    """With strings for the numbers of layers, as files have them."""
    return {str(key): _keyed(each) for key, each in tree.items()} if isinstance(tree, dict) else tree


def _like(tree: Any, keyed: Any) -> Any:
    """`_keyed` undone."""
    return {key: _like(each, keyed[str(key)]) for key, each in tree.items()} if isinstance(tree, dict) else keyed
