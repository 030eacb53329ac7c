"""Gluon's layers, run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convlab.models.adapters import ROLES, Arrays, as_arrays
from convlab.models.layers.layer import Convolution
from convlab.models.layers.outputs import arrays_of_results

from .. import private
from ..blocks import semantics
from ..layers import Conv2D
from ..ops import mx, ops
from .build import check_dtype, tensor
from .options import Block, value_of
from .read import nn


def _check_run(natives: Sequence[Block], dtype: str, ctx: Any) -> None:
    for native in natives:
        kinds = {**dict.fromkeys((nn.Conv1D, nn.Conv2D, nn.Conv3D), "convolution"), nn.Dense: "dense layer"}
        kind = next((name for layer, name in kinds.items() if isinstance(native, layer)), None)
        if dtype == "bfloat16" or (kind and ctx.device_type == "cpu"):
            check_dtype(dtype, kind or "layer")


def _through(natives: Sequence[Block], *values: Any, owner: Block = None, leaves: dict[str, Any] | None = None) -> Any:
    """Call natives one after another, one of them with other parameters."""
    x = values[0]
    if len(values) > 1:
        x, natives = natives[0](*values), natives[1:]
    for native in natives:
        nhwc = isinstance(native, Conv2D) and native.spec.data_format == "NHWC"
        x = x.transpose((0, 2, 3, 1)) if nhwc else x
        x = native.hybrid_forward(mx.nd, x, **leaves) if leaves and native is owner else native(x)
        x = x.transpose((0, 3, 1, 2)) if nhwc else x
    return x


def run(natives: Sequence[Block], x: np.ndarray | Arrays, dtype: str) -> np.ndarray | Arrays:
    """See `convlab.models.adapters.Models`."""
    with semantics(natives) as (numpy, ctx), mx.autograd.pause(train_mode=False):
        _check_run(natives, dtype, ctx)
        result = _through(natives, *(tensor(value, dtype, numpy, ctx) for value in as_arrays(x)))
        return arrays_of_results(result, ops.to_numpy)


def _learned(owner: Block | None) -> list[str]:
    """The names of a block's parameters that have gradients: not those of running statistics, nor a gamma of 1."""
    fixed = owner is not None and private.operator_options(owner).get("fix_gamma")
    names = [] if owner is None else [*private.parameters(owner)]
    return [name for name in names if name == "bias" or (name in ROLES and not (fixed and name == "gamma"))]


def gradients(natives: Sequence[Block], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters.Models`."""
    owner = next((native for native in natives if private.parameters(native)), None)
    with semantics(natives) as (numpy, ctx):
        _check_run(natives, dtype, ctx)
        parameters = private.parameters(owner) if owner else {}
        leaves = {name: value_of(parameter).copy() for name, parameter in parameters.items()}
        inputs = {"X": tensor(x, dtype, numpy, ctx), **{name: leaves[name] for name in _learned(owner)}}
        for leaf in inputs.values():
            leaf.attach_grad()
        with mx.autograd.record(train_mode=False):
            y = _through(natives, inputs["X"], owner=owner, leaves=leaves)
        y.backward(tensor(dy, dtype, numpy, ctx), train_mode=False)
        arrays = {ROLES.get(name, name): ops.to_numpy(leaf.grad) for name, leaf in inputs.items()}
    if isinstance(owner, Conv2D):
        arrays["K"] = Convolution.ours(owner.spec, arrays["K"], None, dtype).kernel
    return arrays
