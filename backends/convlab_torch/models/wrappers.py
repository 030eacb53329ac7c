"""Modules that stand for another one: a compiled model, or one on several devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from convlab.errors import ModelError

from .. import private


def unwrapped(model: Any) -> Any:
    """The module that `torch.compile`, or what computes on several devices, was given; another one as it is.

    Raises:
        ModelError: it is TorchScript, which has no code of Python's any more.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            f"model: got TorchScript of {model.original_name}, expected the module that it was made of.",
            hint="give that module, with the weights: module.load_state_dict(script.state_dict()).",
        )
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return unwrapped(model.module)
    return private.not_compiled(model)
