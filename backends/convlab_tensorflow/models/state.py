"""The weights of Keras's layers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.layers.attention import Attention
from convlab.models.layers.layer import Layer
from convlab.models.layers.own_arrays import OF_ONE_ARRAY, other_numbers
from convlab.models.layers.reading import Model, Part, parts_with_arrays

from .. import private
from .arrays import array_of
from .attention import fill_attention
from .build import arrays_of
from .depth import deep_enough
from .readers import SEPARABLE, children


def fill(model: Model, layers: Mapping[str, Layer]) -> kl.Layer:
    """See `convlab.models.adapters.Models`."""
    other = _copy(model.native)
    other.set_weights(model.native.get_weights())
    parts = {part.path: part for part in parts_with_arrays(model.parts)}
    for path, layer in layers.items():
        native, inside, half = _at(other, path)
        if inside:
            _fill_own(native, inside, parts[path], layer)
        elif isinstance(layer, Attention):
            fill_attention(native, layer)
        else:
            alone = native.weights[0] if len(native.weights) == 1 and isinstance(layer, OF_ONE_ARRAY) else None
            for name, array in arrays_of(native, layer).items():
                variable = getattr(native, f"{half}{name}" if name == "kernel" else name, alone)
                if variable is not None:
                    variable.assign(array.reshape(variable.shape))
    return other


def _at(model: kl.Layer, path: str) -> tuple[kl.Layer, str, str]:
    """The innermost layer at a path, what its code computes there, and the start of its kernel's name."""
    native, half = model, ""
    for name in filter(None, path.split("/")):
        if isinstance(native, SEPARABLE):
            half = f"{name}_"  # The layer is two of convlab's, which have its arrays.
            continue
        child = next((child for child in children(native) if child.name == name), None)
        if child is None:
            return native, name, half
        native = child
    return native, "", half


def _fill_own(owner: kl.Layer, name: str, part: Part, layer: Layer) -> None:
    """Set a variable of a layer that its code takes as it is: the one of this name, or with these numbers.

    Raises:
        ModelError: the code computes other numbers from its variables, or holds them itself.
    """
    mine, new = (
        np.concatenate([np.ravel(array) for array in arrays_of(part.native, each).values() if array is not None])
        for each in (part.layer, layer)
    )
    own = vars(owner).get(name)
    variables = [own] if isinstance(own, keras.Variable) else owner.weights
    taken = [each for each in variables if np.array_equal(array_of(each).ravel(), mine)]
    if len(taken) == 1:
        taken[0].assign(new.reshape(taken[0].shape))
    elif not np.array_equal(mine, new):
        raise other_numbers(part.path, "give the model these numbers first.")


def weights(model: kl.Layer) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters.Models`."""
    return dict(zip(_paths(model), model.get_weights(), strict=True))


def _paths(model: kl.Layer) -> list[str]:
    """A name for each of a model's weights, the same in its copies: its layer's path and its own name."""
    paths: dict[int, str] = {}

    def visit(layer: kl.Layer, prefix: str) -> None:
        for child in children(layer):
            visit(child, f"{prefix}{child.name}/")
        for variable in layer.weights:
            name = f"{prefix}{variable.name}"
            free = (path for n in count() if (path := f"{name}_{n}" if n else name) not in paths.values())
            paths.setdefault(id(variable), next(free))

    visit(model, "")
    return [paths[id(variable)] for variable in model.weights]


def with_weights(model: kl.Layer, weights: Any) -> kl.Layer:
    """See `convlab.models.adapters.Models`."""
    other = _copy(model)
    other.set_weights([weights[path] for path in _paths(model)] if isinstance(weights, dict) else weights)
    return other


def _copy(model: kl.Layer) -> kl.Layer:
    """The same layers, built, with weights of their own."""
    try:
        cloned = isinstance(model, (keras.Sequential, private.functional_class()))
        with deep_enough(len(children(model))):
            other = keras.models.clone_model(model) if cloned else type(model).from_config(model.get_config())
    except (TypeError, NotImplementedError) as error:
        raise UnsupportedError(
            f"{type(model).__name__}: Keras can't copy it, since its class has no get_config.",
            hint="load the weights into a new model by Keras.",
        ) from error
    _build_like(other, model)
    return other


def _build_like(new: kl.Layer, old: kl.Layer) -> None:
    for pair in zip(children(new), children(old), strict=True):
        _build_like(*pair)
    if old.built and not new.built and old.get_build_config():
        new.build_from_config(old.get_build_config())
    new.built = old.built


def _with_files(model: kl.Layer) -> keras.Model:
    if isinstance(model, keras.Model):
        return model
    alone = keras.Sequential([model])
    alone.built = True
    return alone


def save(model: kl.Layer, path: Path) -> None:
    """See `convlab.models.adapters.Models`."""
    _with_files(model).save_weights(path)


def load(path: Path, model: kl.Layer) -> Any:
    """See `convlab.models.adapters.Models`; the file is HDF5, in which there is no code."""
    other = _copy(model)
    _with_files(other).load_weights(path)
    return dict(zip(_paths(model), other.get_weights(), strict=True))
