"""Weights as trees of arrays, which linen's and nnx's layers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from convlab.errors import ModelError
from convlab.models.layers.layer import Layer

from ..ops import ops
from .attention import trees_of
from .build import NAMES
from .read import read_function


def check_alike(mine: Any, theirs: Any) -> None:
    """Raise a `ModelError` for weights that aren't like the model's own: Flax takes weights of any shape."""
    wanted, given = (
        {jax.tree_util.keystr(path): _kind(array) for path, array in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (mine, theirs)
    )
    others = {name: kind for name, kind in wanted.items() if given.get(name) != kind}
    wrong = [f"{name}: {given.get(name)}, expected {kind}" for name, kind in others.items()]
    wrong += [f"{name} isn't in the model" for name in given if name not in wanted]
    if wrong:
        raise ModelError(f"weights: got {'; '.join(wrong[:5])}.", hint="the weights are another model's.")


def check_constants(path: str, function: Any, layer: Layer) -> None:
    """Raise a `ModelError` for numbers in a model's code that aren't a layer's, since they can't be replaced."""
    own, _ = read_function(function)
    numbers = [(getattr(own, name, None), getattr(layer, name)) for name in layer.arrays]
    if any((mine is None) != (theirs is None) or np.any(mine != theirs) for mine, theirs in numbers):
        raise ModelError(
            f"{path}: got other numbers than those in the model's code, expected the same.",
            hint="make them variables, or write these numbers into the code.",
        )


def replaced_array(path: str, variable: Any, function: Any, layer: Layer) -> Any:
    """An array of the model's own that its code takes, in another one's place: a class token, positions or a scale.

    Raises:
        ModelError: the code computes the layer's numbers from it.
    """
    own, _ = read_function(function)
    mine, new = (None if each is None else _only_array(each) for each in (own, layer))
    if mine is None or new is None or not np.array_equal(np.ravel(mine), np.ravel(ops.to_numpy(variable))):
        check_constants(path, function, layer)
        return variable
    return ops.asarray(np.array(new).reshape(np.shape(variable)), ops.dtype(variable))


def arrays_for(native: Any, layer: Layer, data_format: str | None) -> dict[str, np.ndarray]:
    """A layer's arrays by the names and in the layout that a module of Flax's has them."""
    arrays = NAMES.arrays(layer, data_format)
    if not getattr(native, "transpose_kernel", True):  # It isn't flipped, and has the inputs before the outputs.
        kernel = arrays["kernel"]
        arrays["kernel"] = np.flip(kernel, tuple(range(kernel.ndim - 2))).swapaxes(-1, -2)
    return arrays


def _only_array(layer: Layer) -> Any:
    """The one array of a layer that has one."""
    held = [name for name in layer.arrays if getattr(layer, name) is not None]
    trees = trees_of(layer) or {name: getattr(layer, name) for name in held}
    return next(iter(trees.values())) if len(held) == 1 else None


def _kind(array: Any) -> tuple[tuple[int, ...], str]:
    """An array's shape, and which kind of numbers it holds."""
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return tuple(np.shape(array)), "floating" if floating else str(array.dtype)


def save_tree(tree: Any, path: Path) -> None:
    """Write a tree of arrays as msgpack or, into a folder, by Orbax."""
    if path.suffix == ".orbax":
        import orbax.checkpoint

        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), tree)
        return
    path.write_bytes(serialization.to_bytes(tree))


def load_tree(path: Path, like: Any) -> Any:
    """A tree of arrays like another one, from a file or a folder that `save_tree` wrote."""
    if path.suffix == ".orbax":
        import orbax.checkpoint

        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(path.absolute())
            metadata = getattr(metadata, "item_metadata", metadata)
            check_alike(like, getattr(metadata, "tree", metadata))  # a restore with other shapes leaves Orbax broken
            return checkpointer.restore(path.absolute(), like)
    return serialization.from_bytes(like, path.read_bytes())
