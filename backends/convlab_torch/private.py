"""The private names of PyTorch that the adapter cannot do without, each behind one function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import _C, Tensor, nn
from torch.autograd import forward_ad

_functorch = getattr(_C, "_functorch", None)
_is_wrapped: Callable[[Any], bool] | None = getattr(_functorch, "is_functorch_wrapped_tensor", None)
_innermost_transform: Callable[[], Any] | None = getattr(_functorch, "peek_interpreter_stack", None)
_fake_mode: Callable[..., Any] | None = getattr(getattr(torch, "_subclasses", None), "FakeTensorMode", None)
_count_dispatch_modes: Callable[[], int] | None = getattr(_C, "_len_torch_dispatch_stack", None)


def is_wrapped(x: Any) -> bool:
    """Whether x is a tensor that `torch.func`'s transforms (`vmap`, `grad`, `jvp`) have wrapped.

    No public name tells: the type of a wrapped tensor is `Tensor`, and reading its numbers fails. Without the private
    name every tensor counts as wrapped, so that convlab uses torch's own operators only, which is slower.
    """
    return _is_wrapped is None or _is_wrapped(x)


def is_transforming() -> bool:
    """Whether the code runs inside one of `torch.func`'s transforms.

    No public name tells. Without the private name the answer is always yes, so that each call goes through the
    autograd function that transforms can see into, which is slower.
    """
    return _innermost_transform is None or _innermost_transform() is not None


def has_dispatch_mode() -> bool:
    """Whether a `TorchDispatchMode` sees each operator, as fake tensors' and profilers' do.

    No public name tells. Without the private name the answer is always yes, so that convlab computes nothing on a
    tensor's memory, which such a mode wouldn't see, and remembers no calls: that is slower.
    """
    return _count_dispatch_modes is None or _count_dispatch_modes() > 0


def in_forward_mode() -> bool:
    """Whether the code runs inside `torch.autograd.forward_ad.dual_level`.

    No public name tells. Without the private name the answer is always yes, so that each call records a gradient,
    which is slower.
    """
    return bool(getattr(forward_ad, "_current_level", 0) >= 0)


def not_compiled(module: object) -> Any:
    """The module that `torch.compile` was given; another one as it is.

    No public name tells. Without the private name a compiled module is refused.
    """
    return getattr(module, "_orig_mod", module)


def is_view(x: Tensor) -> bool:
    """Whether x shares its memory with another tensor as autograd sees it.

    No public name tells. Without the private name the answer is always yes, so that a tensor is copied for nothing.
    """
    test = getattr(x, "_is_view", None)
    return test is None or bool(test())


def hooks_before(module: nn.Module) -> list[Callable[..., Any]]:
    """What runs before each call of a module.

    No public name tells. Without the private name there is none, so that a kernel that such a hook computes is the one
    of the last call.
    """
    return [*getattr(module, "_forward_pre_hooks", {}).values()]


@contextmanager
def shapes_alone() -> Iterator[None]:
    """In it tensors have shapes and no numbers, so that a model runs on large images in no time.

    No public name makes them of layers on any device. Without the private name the numbers are computed. What fails is
    an error alone, which PyTorch would also log, line by line.
    """
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with nullcontext() if _fake_mode is None else _fake_mode(allow_non_fake_inputs=True):
            yield
    finally:
        logger.disabled = disabled
