"""The weights of gluon's layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convlab.errors import ModelError
from convlab.models.layers.layer import Layer
from convlab.models.layers.own_arrays import other_numbers
from convlab.models.layers.reading import Model

from .. import private
from ..blocks import semantics
from ..ops import mx, ops
from .build import arrays_of, tensor
from .options import Block, value_of
from .read import read


def fill(model: Model, layers: Mapping[str, Layer]) -> Block:
    """See `convlab.models.adapters.Models`."""
    other = _copy(model.native)
    own = private.all_parameters(other)
    with semantics([model.native]) as (numpy, ctx):
        for part in read(other).parts:
            for name, array in arrays_of(part.native, layers.get(part.path)).items():
                parameter = private.parameters(part.native)[name]
                if parameter not in own.values():
                    parameter = _original(part.path, own.get(part.path), parameter, array)
                dtype = str(np.dtype(parameter.dtype).name)
                parameter.set_data(tensor(array.reshape(parameter.shape), dtype, numpy, ctx))
    return other


def _original(path: str, own: Any, copy: Any, array: np.ndarray) -> Any:
    """The parameter that the model's code takes, of which convlab has a copy; the copy, if that is the array.

    Raises:
        ModelError: the code computes other numbers from its parameters.
    """
    numbers = ops.to_numpy(value_of(copy)).ravel()
    if own is not None and np.array_equal(ops.to_numpy(value_of(own)).ravel(), numbers):
        return own
    if not np.array_equal(array.ravel(), numbers):
        raise other_numbers(path, "give the model these numbers first.")
    return copy


def weights(model: Block) -> dict[str, Any]:
    """See `convlab.models.adapters.Models`."""
    return {name: value_of(parameter) for name, parameter in private.all_parameters(model).items()}


def with_weights(model: Block, weights: Any) -> Block:
    """See `convlab.models.adapters.Models`."""
    other = _copy(model)
    if unknown := set(weights) - set(private.all_parameters(other)):
        raise ModelError(
            f"weights: {', '.join(sorted(unknown))} aren't in the model.", hint="the weights are another model's."
        )
    with semantics([model]) as (numpy, _):
        for name, parameter in private.all_parameters(other).items():
            value = weights[name]
            parameter.set_data(value.as_np_ndarray() if numpy else value.as_nd_ndarray())
    return other


def _copy(block: Block) -> Block:
    """A deep copy that trains; what hybridizing has compiled isn't copied, but compiled again."""
    with private.not_compiled(block), semantics([block]):
        other = copy.deepcopy(block)
        for parameter in private.all_parameters(other).values():
            # A copied array isn't one that autograd knows: only a change of grad_req makes it known.
            kind, parameter.grad_req = parameter.grad_req, "null"
            parameter.grad_req = kind
        return other


def save(model: Block, path: Path) -> None:
    """See `convlab.models.adapters.Models`."""
    with semantics([model]):
        model.save_parameters(str(path))


def load(path: Path, model: Block) -> dict[str, Any]:
    """See `convlab.models.adapters.Models`."""
    with semantics([model]) as (numpy, _):
        return dict((mx.npx if numpy else mx.nd).load(str(path)))
