"""The weights of Flax's linen layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
from jax import Array

from convlab.models.layers.layer import Layer
from convlab.models.layers.reading import Model, parts_with_arrays

from ..ops import ops
from ..shared.attention import trees_of
from ..shared.state import arrays_for, check_alike, check_constants, load_tree, replaced_array, save_tree


def fill(model: Model, layers: Mapping[str, Layer]) -> nn.Module:
    """See `convlab.models.adapters.Models`."""
    module, variables = model.native.unbind()
    natives = {part.path: part.native for part in parts_with_arrays(model.parts)}
    for path, layer in layers.items():
        keys = [*filter(None, path.split("/"))]
        if not isinstance(natives[path], nn.Module):
            collection, variable = _own_array(variables, keys)
            if variable is None:
                check_constants(path, natives[path], layer)
            else:
                new = replaced_array(path, variable, natives[path], layer)
                variables = _replaced(variables, [collection, *keys], new)
            continue
        arrays = trees_of(layer) or arrays_for(natives[path], layer, getattr(natives[path], "data_format", None))
        for collection, tree in natives[path].unbind()[1].items():
            new = _like(arrays, tree)
            variables = _replaced(variables, [collection, *keys], new)
    filled: nn.Module = module.bind(variables)
    return filled


def _own_array(variables: Any, path: Sequence[str]) -> tuple[str, Array | None]:
    """The variable at a path, and its collection; None where there is none."""
    for collection, tree in variables.items():
        for name in path:
            tree = tree.get(name) if isinstance(tree, Mapping) else None
        if isinstance(tree, Array):
            return collection, tree
    return "", None


def _like(arrays: Any, tree: Any) -> Any:
    """Arrays with the shapes and dtypes of a tree's."""
    if isinstance(tree, dict):
        return {name: _like(arrays[name], inner) for name, inner in tree.items()}
    return ops.asarray(arrays.reshape(tree.shape), ops.dtype(tree))


def _replaced(tree: Any, path: Sequence[str], new: Any) -> Any:
    """A tree with another one in the place that a path names."""
    return {**tree, path[0]: _replaced(tree[path[0]], path[1:], new)} if path else new


def weights(model: nn.Module) -> Any:
    """See `convlab.models.adapters.Models`."""
    return model.unbind()[1]


def with_weights(model: nn.Module, weights: Any) -> nn.Module:
    """See `convlab.models.adapters.Models`."""
    module, variables = model.unbind()
    check_alike(variables, weights)
    filled: nn.Module = module.bind(weights)
    return filled


def save(model: nn.Module, path: Path) -> None:
    """See `convlab.models.adapters.Models`."""
    save_tree(weights(model), path)


def load(path: Path, model: nn.Module) -> Any:
    """See `convlab.models.adapters.Models`."""
    return load_tree(path, weights(model))
