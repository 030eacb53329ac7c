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
from convlab.models.layers.reading import Model

from .. import private
from .attention import fill_attention
from .build import arrays_of
from .readers import SEPARABLE, children


def fill(model: Model, layers: Mapping[str, Layer]) -> kl.Layer:
    """See `convlab.models.adapters.Models`."""
    other = _copy(model.native)
    other.set_weights(model.native.get_weights())
    for path, layer in layers.items():
        native, half = other, ""
        for name in filter(None, path.split("/")):
            if isinstance(native, SEPARABLE):
                half = f"{name}_"  # The layer is two of convlab's, which have its arrays.
            else:
                native = next(child for child in children(native) if child.name == name)
        if isinstance(layer, Attention):
            fill_attention(native, layer)
            continue
        for name, array in arrays_of(native, layer).items():
            variable = getattr(native, f"{half}{name}" if name == "kernel" else name, None)
            if variable is not None:
                variable.assign(array.reshape(variable.shape))
    return other


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
