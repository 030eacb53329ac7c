"""PyTorch's layers, run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convlab.models.adapters import ROLES
from convlab.models.layers.layer import Convolution

from ..layers import Conv2D
from ..ops import ops
from .read import inference


def run(natives: Sequence[Any], x: np.ndarray | tuple[np.ndarray, ...], dtype: str) -> np.ndarray:
    """See `convlab.models.adapters.Models`."""
    values = x if isinstance(x, tuple) else (x,)
    with torch.no_grad(), inference(_modules(natives)):
        return ops.to_numpy(_through(natives, *(_tensor(value, natives, dtype) for value in values)))


def _modules(natives: Sequence[Any]) -> list[nn.Module]:
    return [native for native in natives if isinstance(native, nn.Module)]


def _tensor(x: np.ndarray, natives: Sequence[Any], dtype: str) -> Tensor:
    parameters = (parameter for native in _modules(natives) for parameter in native.parameters())
    device = next((parameter.device for parameter in parameters), "cpu")
    return torch.from_numpy(np.ascontiguousarray(x)).to(getattr(torch, dtype)).to(device)


def _through(natives: Sequence[Any], *values: Tensor, leaves: dict[str, Tensor] | None = None) -> Tensor:
    """Call natives one after another; the layer with a kernel among them with other parameters, if they are given."""
    x = values[0]
    if len(values) > 1:
        x, natives = natives[0](*values), natives[1:]
    for native in natives:
        nhwc = isinstance(native, Conv2D) and native.spec.data_format == "NHWC"
        x = x.permute(0, 2, 3, 1) if nhwc else x.clone() if getattr(native, "inplace", False) else x
        x = torch.func.functional_call(native, leaves, (x,)) if leaves and _learns(native) else native(x)
        (x,) = x.values() if isinstance(x, dict) and len(x) == 1 else (x,)
        x = x.permute(0, 3, 1, 2) if nhwc else x
    return x


def _learns(native: nn.Module) -> bool:
    return isinstance(native, (Conv2D, nn.Conv2d, nn.ConvTranspose2d, nn.Linear))


def gradients(natives: Sequence[Any], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters.Models`."""
    owner = next((native for native in natives if _learns(native)), None)
    parameters = dict(owner.named_parameters(recurse=False)) if owner else {}
    parameters = {name: parameter for name, parameter in parameters.items() if name in ("weight", "bias")}
    with torch.inference_mode(False), torch.enable_grad(), inference(_modules(natives)):
        leaves = {name: parameter.detach().clone().requires_grad_() for name, parameter in parameters.items()}
        inputs = _tensor(x, natives, dtype).requires_grad_()
        y = _through(natives, inputs, leaves=leaves)
        dx, *others = torch.autograd.grad(y, [inputs, *leaves.values()], _tensor(dy, natives, dtype))
    slopes = {"X": dx, **dict(zip(leaves, others, strict=True))}
    arrays = {ROLES.get(name, name): ops.to_numpy(slope) for name, slope in slopes.items()}
    if isinstance(owner, Conv2D) and "K" in arrays:
        arrays["K"] = Convolution.ours(owner.spec, arrays["K"], None, dtype).kernel
    return arrays
