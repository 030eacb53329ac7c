"""An nnx model in inference, whatever it says itself, and each call of a module in it seen."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from flax import nnx

# The arguments by which layers are put into inference.
_SWITCHES: dict[type[nnx.Module], dict[str, bool]] = {
    nnx.BatchNorm: {"use_running_average": True},
    nnx.Dropout: {"deterministic": True},
}
Seen = Callable[..., Any]


def switches_of(module: Any) -> dict[str, bool]:
    """The arguments that put a layer into inference."""
    return next((switches for kind, switches in _SWITCHES.items() if isinstance(module, kind)), {})


def in_inference(model: nnx.Module, seen: Seen | None = None) -> nnx.Module:
    """A copy of a model in inference.

    Args:
        model: any module.
        seen: `seen(path, call, *args, **kwargs)` stands for each module's call, which it may call.
    """
    copy: nnx.Module = nnx.clone(model)
    copy.eval()  # type: ignore[no-untyped-call]
    for path, module in [*nnx.iter_modules(copy)]:
        kind = type(module)
        if callable(module):
            called = _called("/".join(map(str, path)), kind, switches_of(module), seen)
            module.__class__ = types.new_class(kind.__name__, (kind,))
            module.__class__.__call__ = called  # type: ignore[method-assign]
    return copy


def _called(path: str, kind: Any, switches: dict[str, bool], seen: Seen | None) -> Callable[..., Any]:
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if switches:
            args, kwargs = args[:1], switches
        return (
            seen(path, kind.__call__.__get__(self), *args, **kwargs) if seen else kind.__call__(self, *args, **kwargs)
        )

    return __call__
