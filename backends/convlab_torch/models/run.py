"""PyTorch's layers, run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convlab.models.adapters import Arrays, as_arrays
from convlab.models.layers.layer import Convolution
from convlab.models.layers.outputs import arrays_of_results

from ..layers import Conv2D
from ..ops import ops
from . import attention
from .read import inference
from .sizes import CONVOLUTIONS, TRANSPOSED


def run(natives: Sequence[Any], x: np.ndarray | Arrays, dtype: str) -> np.ndarray | Arrays:
    """See `convlab.models.adapters.Models`."""
    values = as_arrays(x)
    with torch.no_grad(), inference(_modules(natives)):
        result = _through(natives, *(_tensor(value, natives, dtype) for value in values))
        return arrays_of_results(result, ops.to_numpy)


def _modules(natives: Sequence[Any]) -> list[nn.Module]:
    return [native for native in natives if isinstance(native, nn.Module)]


def _tensor(x: np.ndarray, natives: Sequence[Any], dtype: str) -> Tensor:
    parameters = (parameter for native in _modules(natives) for parameter in native.parameters())
    device = next((parameter.device for parameter in parameters), "cpu")
    return torch.from_numpy(np.ascontiguousarray(x)).to(getattr(torch, dtype)).to(device)


def _through(
    natives: Sequence[Any], *values: Tensor, owner: Any = None, leaves: Mapping[str, Tensor] | None = None
) -> Any:
    """Call natives one after another, one of them with other parameters."""
    x = values[0]
    if len(values) > 1:
        x, natives = natives[0](*values), natives[1:]
    for native in natives:
        nhwc = isinstance(native, Conv2D) and native.spec.data_format == "NHWC"
        x = x.permute(0, 2, 3, 1) if nhwc else x.clone() if getattr(native, "inplace", False) else x
        x = torch.func.functional_call(native, dict(leaves), (x,)) if leaves and native is owner else native(x)
        x = x.permute(0, 3, 1, 2) if nhwc else x
    return x


def _roles(native: nn.Module) -> dict[str, str]:
    """The roles of a module's own parameters by their names: see `convlab.models.adapters.Models.gradients`."""
    if isinstance(native, (Conv2D, *CONVOLUTIONS, *TRANSPOSED, nn.Linear)):
        return {"weight": "K", "bias": "bias"}
    if isinstance(native, nn.PReLU):
        return {"weight": "slope"}
    return {"weight": "scale", "bias": "shift", "token": "token", "embedding": "embedding"}


def _own(native: nn.Module) -> dict[str, nn.Parameter]:
    return dict(native.named_parameters(recurse=False))


def gradients(natives: Sequence[Any], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters.Models`."""
    attends = next((native for native in natives if isinstance(native, attention.ATTENTION)), None)
    owner = attends or next((native for native in _modules(natives) if _own(native)), None)
    roles = {} if owner is None else _roles(owner)
    parameters = {} if owner is None else {name: each for name, each in _own(owner).items() if name in roles}
    parameters = parameters if attends is None else dict(attends.named_parameters())
    with torch.inference_mode(False), torch.enable_grad(), inference(_modules(natives)):
        leaves = {name: parameter.detach().clone().requires_grad_() for name, parameter in parameters.items()}
        inputs = _tensor(x, natives, dtype).requires_grad_()
        y = _through(natives, inputs, owner=owner, leaves=leaves)
        dx, *others = torch.autograd.grad(y, [inputs, *leaves.values()], _tensor(dy, natives, dtype))
    if attends is not None:
        return {"X": ops.to_numpy(dx)} | attention.gradients_of(attends, dict(zip(leaves, others, strict=True)))
    slopes = {"X": dx, **{roles[name]: slope for name, slope in zip(leaves, others, strict=True)}}
    arrays = {role: ops.to_numpy(slope) for role, slope in slopes.items()}
    if isinstance(owner, nn.LayerNorm):  # which may have axes of one pixel
        arrays |= {role: array.reshape(-1) for role, array in arrays.items() if role != "X"}
    if isinstance(owner, Conv2D) and "K" in arrays:
        arrays["K"] = Convolution.ours(owner.spec, arrays["K"], None, dtype).kernel
    return arrays
