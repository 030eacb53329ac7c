"""The weights of PyTorch's layers."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convlab.errors import ModelError
from convlab.models.layers.layer import Layer
from convlab.models.layers.own_arrays import other_numbers
from convlab.models.layers.reading import Model, parts_with_arrays

from .build import arrays_of, filled
from .read import read


def fill(model: Model, layers: Mapping[str, Layer]) -> nn.Module:
    """See `convlab.models.adapters.Models`."""
    other: nn.Module = copy.deepcopy(model.native)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*other.parameters(), *other.buffers())}
    for part in parts_with_arrays(read(other).parts):
        if part.path in layers:
            arrays, training = arrays_of(part.native, layers[part.path]), part.native.training
            for name, array in arrays.items():
                _check_shared(part.path, attrgetter(name)(part.native), array, own)
            filled(part.native, **arrays).train(training)
    return other


def _check_shared(path: str, tensor: Tensor, array: np.ndarray | None, own: Container[int]) -> None:
    """Raise a `ModelError` for numbers that would replace some that the model's code computes, or holds itself."""
    if array is None or tensor.untyped_storage().data_ptr() in own:
        return
    if not np.array_equal(tensor.detach().cpu().numpy(), array):
        raise other_numbers(path, "PyTorch's own file, or its state dict, has what they are computed from.")


def weights(model: nn.Module) -> dict[str, Tensor]:
    """See `convlab.models.adapters.Models`."""
    return model.state_dict()


def with_weights(model: nn.Module, weights: Any) -> nn.Module:
    """See `convlab.models.adapters.Models`."""
    other = copy.deepcopy(model)
    other.load_state_dict(weights)
    return other


def save(model: nn.Module, path: Path) -> None:
    """See `convlab.models.adapters.Models`."""
    torch.save(model.state_dict(), path)


def load(path: Path, model: nn.Module) -> Any:
    """See `convlab.models.adapters.Models`; no pickled code is run."""
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    for name, tensor in model.state_dict().items():
        if name in tensors and tensor.is_floating_point() != tensors[name].is_floating_point():
            raise ModelError(
                f"{name}: got {tensors[name].dtype}, expected {tensor.dtype}.",
                hint="the file's weights are another model's.",
            )
    return tensors
