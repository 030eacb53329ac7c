"""The weights of PyTorch's layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convlab.errors import ModelError
from convlab.models.layers.layer import Layer
from convlab.models.layers.reading import Model

from .build import arrays_of, filled
from .read import read


def fill(model: Model, layers: Mapping[str, Layer]) -> nn.Module:
    """See `convlab.models.adapters.Models`."""
    other: nn.Module = copy.deepcopy(model.native)
    for part in read(other).parts:
        if part.path in layers:
            training = part.native.training
            filled(part.native, **arrays_of(part.native, layers[part.path])).train(training)
    return other


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
