"""The weights of Flax's nnx layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from convlab.models.layers.layer import Layer, dtype_of
from convlab.models.layers.reading import Model, parts_with_arrays

from ..nnx import Conv2D
from ..ops import ops
from ..shared.attention import trees_of
from ..shared.state import arrays_for, check_alike, check_constants, load_tree, replaced_array, save_tree
from .build import fill_nested, filled
from .read import read


def fill(model: Model, layers: Mapping[str, Layer]) -> nnx.Module:
    """See `convlab.models.adapters.Models`."""
    other: nnx.Module = nnx.clone(model.native)
    modules = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(other)}
    natives = {part.path: part.native for part in parts_with_arrays(read(other).parts)}
    for path, layer in layers.items():
        native = natives[path]
        if not isinstance(native, nnx.Module):
            owner, _, name = path.rpartition("/")
            own = getattr(modules.get(owner), name, None)
            if isinstance(own, nnx.Variable):
                filled(modules[owner], ops.dtype(own[...]), **{name: replaced_array(path, own[...], native, layer)})
            else:
                check_constants(path, native, layer)
            continue
        if (trees := trees_of(layer)) is not None:
            fill_nested(native, dtype_of(layer), trees)
            continue
        data_format = native.spec.data_format if isinstance(native, Conv2D) else None
        for name, array in arrays_for(native, layer, data_format).items():
            variable = getattr(native, name, None)
            if isinstance(variable, nnx.Variable):
                value = variable[...]
                filled(native, ops.dtype(value), **{name: array.reshape(value.shape)})
    return other


def weights(model: nnx.Module) -> Any:
    """See `convlab.models.adapters.Models`."""
    return _tree(model)


def with_weights(model: nnx.Module, weights: Any) -> nnx.Module:
    """See `convlab.models.adapters.Models`."""
    check_alike(_tree(model), weights)
    other: nnx.Module = nnx.clone(model)
    state = _state(other)
    nnx.replace_by_pure_dict(state, weights)
    nnx.update(other, state)
    return other


def _state(model: nnx.Module) -> Any:
    """A model's variables, without the state of its random numbers."""
    return nnx.state(model, nnx.Not(nnx.RngState))


def _tree(model: nnx.Module) -> Any:
    """The arrays of a model's variables in nested dictionaries."""
    return nnx.to_pure_dict(_state(model))


def save(model: nnx.Module, path: Path) -> None:
    """See `convlab.models.adapters.Models`."""
    save_tree(_with_strings(_tree(model)), path)


def load(path: Path, model: nnx.Module) -> Any:
    """See `convlab.models.adapters.Models`."""
    tree = _tree(model)
    return _with_numbers(load_tree(path, _with_strings(tree)), tree)


def _with_strings(tree: Any) -> Any:
    """A tree with strings for the numbers of layers, as files have them."""
    return {str(key): _with_strings(inner) for key, inner in tree.items()} if isinstance(tree, dict) else tree


def _with_numbers(tree: Any, like: Any) -> Any:
    """A tree of `_with_strings` with the keys of another one in their place."""
    return (
        {key: _with_numbers(tree[str(key)], inner) for key, inner in like.items()} if isinstance(like, dict) else tree
    )
