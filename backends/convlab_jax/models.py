"""Flax's linen layers, read and built: see `convlab.models`. A linen module comes and goes bound to its variables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, serialization
from jax import Array

from convlab.errors import ModelError, UnsupportedError
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Layer
from convlab.models.layers.reading import Model, Part, known, loose_array, loose_code, unbuilt

from . import functions
from .layers import Conv2D
from .ops import ops

BUILTIN = True
SAME = True
LAYOUT = "NHWC"
FILES = (".msgpack", ".orbax")


def read(model: Any, inputs: Any = None) -> Model:
    """See `convlab.models.adapters`."""
    if isinstance(model, nnx.Module):
        from . import nnx_models

        return nnx_models.read(model)
    if not isinstance(model, nn.Module):
        return functions.read_alone(model, "jax")
    if model.scope is None:
        raise ModelError(
            f"model: got a {type(model).__name__} without its variables, expected it bound to them.",
            hint="module.bind(variables)",
        )
    if isinstance(model, nn.Sequential) and type(model).__call__ is nn.Sequential.__call__:
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
        for path, array in flax.traverse_util.flatten_dict(tree).items():
            if not any(path[: len(inside)] == inside for inside in known_paths):
                loose["/".join(path)] = loose_array(f"variable in {collection}", np.shape(array))
    return {**loose, "__call__()": loose_code(model, "__call__", operations)}


def _sequence(model: nn.Sequential, prefix: str) -> Iterator[tuple[Part, bool]]:
    """A Sequential's parts, and whether each is one layer."""
    for index, layer in enumerate(model.layers):
        path = f"{prefix}{getattr(layer, 'name', None) or f'layers_{index}'}"
        if type(layer) is nn.Sequential:
            yield from _sequence(layer, f"{path}/")
        elif isinstance(layer, nn.Module):
            yield Part(path, _alone(layer), *_read(layer, path)), isinstance(layer, tuple(_READERS))
        else:
            yield Part(path, layer, *functions.read_function(layer)), True


def _alone(layer: nn.Module) -> nn.Module:
    module, variables = layer.unbind()
    return module.bind(variables)


def _called(model: nn.Module, inputs: Any) -> tuple[list[Part], list[str]]:
    """The layers that a module calls, in order, each once; and the operations that it calls between them."""
    if inputs is None:
        raise ModelError(
            f"model: got a {type(model).__name__}, whose layers only show when it runs.",
            hint="give inputs=, an image it takes, (N, C, H, W).",
        )
    module, variables = model.unbind()
    found: dict[tuple[str, ...], Part] = {}

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        inner = context.module
        if inner.path not in found and context.method_name == "__call__":
            path = "/".join(inner.path)
            mine = {name: _under(tree, inner.path) for name, tree in variables.items()}
            alone = inner.clone(parent=None, name=None).bind({name: tree for name, tree in mine.items() if tree})
            found[inner.path] = Part(path, alone, *_read(alone, path))
        with jax.named_scope(_LEAF) if isinstance(inner, tuple(_READERS)) else contextlib.nullcontext():
            return call(*args, **kwargs)

    x = np.moveaxis(np.asarray(inputs, np.float32), 1, -1)
    with nn.intercept_methods(note):
        keys = {name: jax.random.key(0) for name in ("params", "dropout")}
        try:
            traced = jax.make_jaxpr(lambda v, x: module.apply(v, x, mutable=True, rngs=keys))(variables, x)
        except Exception as error:  # whatever the module's own code raises
            why = (str(error).strip().splitlines() or [""])[0][:300]
            raise ModelError(
                f"model: it can't be run on inputs of shape {np.shape(inputs)} ({type(error).__name__}: {why}).",
                hint="give what it takes; other arguments than the image need defaults.",
            ) from error
    outer = {path[:length] for path in found for length in range(len(path))}
    return [part for path, part in found.items() if path not in outer], [*_between(traced.jaxpr)]


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
    kind = next((kind for kind in _READERS if isinstance(layer, kind)), None)
    if kind and type(layer).__call__ is not kind.__call__:
        return None, f"{type(layer).__name__}: it is a {kind.__name__} with a __call__ of its own"
    try:
        return known(layer, _READERS)
    except KeyError as error:
        raise unbuilt(path, layer, "bind the module to all of its variables") from error


def _values(layer: nn.Module, collection: str = "params") -> dict[str, Any]:
    return dict(layer.variables[collection])


def _convolution(layer: nn.Conv) -> Layer:
    values = _values(layer)
    return functions.read_convolution(layer, values["kernel"], values.get("bias"))


def _ours(layer: Conv2D) -> Layer:
    from .layers import _spec

    values = _values(layer)
    bias = values.get("bias")
    weight = values["weight"]
    return Convolution.ours(
        _spec(layer), ops.to_numpy(weight), None if bias is None else ops.to_numpy(bias), ops.dtype(weight)
    )


def _batch_norm(layer: nn.BatchNorm) -> Layer:
    statistics, values = _values(layer, "batch_stats"), layer.variables.get("params", {})
    if layer.axis not in (-1, 3):
        raise UnsupportedError(f"over axis {layer.axis}")
    functions.check_dtype(layer, statistics["mean"])
    mean, variance = (ops.to_numpy(statistics[name]) for name in ("mean", "var"))
    scale = ops.to_numpy(values["scale"]) if layer.use_scale else np.ones_like(mean)
    shift = ops.to_numpy(values["bias"]) if layer.use_bias else np.zeros_like(mean)
    return BatchNorm(mean, variance, scale, shift, layer.epsilon, layer.momentum, ops.dtype(statistics["mean"]))


def _dense(layer: nn.Dense) -> Layer:
    values = _values(layer)
    dtype, (kernel, bias) = functions.computed(layer, values["kernel"], values.get("bias"))
    return Dense(kernel.T, bias, dtype)


_READERS: dict[type, Callable[[Any], Layer]] = {
    Conv2D: _ours,
    nn.Conv: _convolution,
    nn.BatchNorm: _batch_norm,
    nn.Dense: _dense,
    nn.Dropout: lambda layer: Dropout(layer.rate),
}


def build(layer: Layer, style: str) -> list[Any]:
    """See `convlab.models.adapters`."""
    if isinstance(layer, Convolution):
        return _build_convolution(layer, style)
    if isinstance(layer, BatchNorm):
        norm = nn.BatchNorm(
            use_running_average=True, momentum=layer.momentum, epsilon=layer.epsilon, param_dtype=layer.dtype
        )
        return [
            norm.bind(
                {
                    "params": _arrays(layer.dtype, scale=layer.scale, bias=layer.shift),
                    "batch_stats": _arrays(layer.dtype, mean=layer.mean, var=layer.variance),
                }
            )
        ]
    if isinstance(layer, Dense):
        dense = nn.Dense(len(layer.kernel), use_bias=layer.bias is not None, param_dtype=layer.dtype)
        return [dense.bind({"params": _arrays(layer.dtype, kernel=layer.kernel.T, bias=layer.bias)})]
    if isinstance(layer, Dropout):
        return [nn.Dropout(layer.rate, deterministic=True).bind({})]
    return [functions.build_function(layer)]


def _arrays(dtype: str, **arrays: np.ndarray | None) -> dict[str, Array]:
    return {name: ops.asarray(array, dtype) for name, array in arrays.items() if array is not None}


def _build_convolution(layer: Convolution, style: str) -> list[Any]:
    dtype = str(layer.spec.dtype)
    if style == "convlab":
        options, weight = layer.ours_for("NHWC")
        return [Conv2D(**options).bind({"params": _arrays(dtype, weight=weight, bias=layer.bias)})]
    options, border = functions.convolution_options(layer)
    conv = nn.Conv(layer.spec.out_channels, **options)
    bound = conv.bind({"params": _arrays(dtype, kernel=layer.kernel.transpose(2, 3, 1, 0), bias=layer.bias)})
    return [bound] if border is None else [border, bound]


def assemble(steps: Sequence[tuple[str, Any]]) -> nn.Module:
    """See `convlab.models.adapters`; linen numbers the layers of a Sequential."""
    layers: list[Any] = []
    variables: dict[str, dict[str, Any]] = {}
    for index, (_, native) in enumerate(steps):
        if not isinstance(native, nn.Module):
            layers.append(native)
            continue
        module, mine = native.unbind()
        layers.append(module)
        for collection, tree in mine.items():
            variables.setdefault(collection, {})[f"layers_{index}"] = tree
    return nn.Sequential(layers).bind(variables)


def run(natives: Sequence[Any], x: np.ndarray, dtype: str) -> np.ndarray:
    """See `convlab.models.adapters`."""
    with ops.scope(dtype):
        forward = functions.once(lambda x: functions.forward(natives, x, _call, _layout))
        return ops.to_numpy(forward(ops.asarray(x, dtype)))


def _call(native: Any, x: Array) -> Array:
    if not isinstance(native, nn.Module):
        return native(x)
    module, variables = native.unbind()
    with nn.intercept_methods(_infer):
        return module.apply(variables, x)


def _infer(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    """Call a module in inference mode, wherever it stands in a model and however it was made."""
    for kind, switch in ((nn.BatchNorm, "use_running_average"), (nn.Dropout, "deterministic")):
        if isinstance(context.module, kind) and context.method_name == "__call__":
            object.__setattr__(context.module, switch, None)  # linen takes the switch once: here or in the call
            args, kwargs = args[:1], {**kwargs, switch: True}
    return call(*args, **kwargs)


def _layout(native: Any) -> str:
    if isinstance(native, nn.Sequential):
        return next((_layout(each) for each in native.layers if isinstance(each, nn.Module)), LAYOUT)
    return native.data_format if isinstance(native, Conv2D) else LAYOUT


def gradients(natives: Sequence[Any], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`."""
    owner = next((each for each in natives if isinstance(each, (Conv2D, nn.Conv))), None)
    module, variables = (None, {}) if owner is None else owner.unbind()

    def called(parameters: Any, x: Array) -> Array:
        def call(native: Any, x: Array) -> Array:
            return module.apply(parameters, x) if native is owner else _call(native, x)

        return functions.forward(natives, x, call, _layout)

    with ops.scope(dtype):
        pull = functions.once(lambda at, x, dy: jax.vjp(called, at, x)[1](dy))
        found, dx = pull(variables, ops.asarray(x, dtype), ops.asarray(dy, dtype))
        named = {name: ops.to_numpy(each) for name, each in found.get("params", {}).items()}
    return {"X": ops.to_numpy(dx)} | to_oihw(owner, named, dtype)


def to_oihw(owner: Any, named: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """A convolution's gradients by the names and in the layout of `convlab.models.adapters`."""
    found = {"bias": named["bias"]} if "bias" in named else {}
    if "kernel" in named:
        found["K"] = named["kernel"].transpose(3, 2, 0, 1)
    if "weight" in named:
        found["K"] = Convolution.ours(getattr(owner, "spec", owner), named["weight"], None, dtype).kernel
    return found


def fill(model: Model, layers: Mapping[str, Layer]) -> nn.Module:
    """See `convlab.models.adapters`."""
    module, variables = model.native.unbind()
    natives = {part.path: part.native for part in model.parts}
    for path, layer in layers.items():
        arrays = arrays_of(natives[path], layer)
        for collection, tree in natives[path].unbind()[1].items():
            new = {name: ops.asarray(arrays[name].reshape(each.shape), ops.dtype(each)) for name, each in tree.items()}
            variables = _replaced(variables, [collection, *filter(None, path.split("/"))], new)
    return module.bind(variables)


def arrays_of(native: Any, layer: Any) -> dict[str, np.ndarray]:
    """A layer's arrays by the names and in the layout that linen's and nnx's modules have."""
    if isinstance(layer, BatchNorm):
        return {"mean": layer.mean, "var": layer.variance, "scale": layer.scale, "bias": layer.shift}
    arrays = {"kernel": layer.kernel.T if isinstance(layer, Dense) else layer.kernel.transpose(2, 3, 1, 0)}
    data_format = getattr(native, "data_format", None) or getattr(getattr(native, "spec", None), "data_format", None)
    if data_format:
        arrays["weight"] = layer.ours_for(data_format)[1]
    return arrays if layer.bias is None else arrays | {"bias": layer.bias}


def _replaced(tree: Any, path: Sequence[str], new: dict[str, Array]) -> Any:
    return {**tree, path[0]: _replaced(tree[path[0]], path[1:], new)} if path else new


def weights(model: nn.Module) -> Any:
    """See `convlab.models.adapters`."""
    return model.unbind()[1]


def with_weights(model: nn.Module, weights: Any) -> nn.Module:
    """See `convlab.models.adapters`."""
    module, variables = model.unbind()
    check_alike(variables, weights)
    return module.bind(weights)


def check_alike(mine: Any, theirs: Any) -> None:
    """Flax takes weights of any shape; a `ModelError` for those that aren't the model's."""
    wanted, given = (
        {jax.tree_util.keystr(path): _kind(each) for path, each in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (mine, theirs)
    )
    others = {name: kind for name, kind in wanted.items() if given.get(name) != kind}
    wrong = [f"{name}: {given.get(name)}, expected {kind}" for name, kind in others.items()]
    wrong += [f"{name} isn't in the model" for name in given if name not in wanted]
    if wrong:
        raise ModelError(f"weights: got {'; '.join(wrong[:5])}.", hint="they are another model's.")


def _kind(array: Any) -> tuple[tuple[int, ...], str]:
    """Its shape, and which kind of numbers it holds."""
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return tuple(np.shape(array)), "floating" if floating else str(array.dtype)


def save(model: nn.Module, path: Path) -> None:
    """See `convlab.models.adapters`."""
    save_tree(weights(model), path)


def save_tree(tree: Any, path: Path) -> None:
    """A tree of arrays as msgpack or, in a folder, by Orbax."""
    if path.suffix == ".orbax":
        import orbax.checkpoint

        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), tree)
        return
    path.write_bytes(serialization.to_bytes(tree))


def load(path: Path, model: nn.Module) -> Any:
    """See `convlab.models.adapters`."""
    return load_tree(path, weights(model))


def load_tree(path: Path, like: Any) -> Any:
    """A tree of arrays like another one from a file or a folder of `save_tree`'s."""
    if path.suffix == ".orbax":
        import orbax.checkpoint

        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            found = checkpointer.metadata(path.absolute())
            found = getattr(found, "item_metadata", found)
            check_alike(like, getattr(found, "tree", found))  # a restore with other shapes leaves Orbax broken
            return checkpointer.restore(path.absolute(), like)
    return serialization.from_bytes(like, path.read_bytes())
