"""Whether convlab's layer knows each argument that a framework's own layer takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from convlab.contract.layer import LayerOptions
from convlab.contract.native_layer import SYNONYMS, NativeLayer


def unknown_arguments(native: NativeLayer, own: Callable[..., Any]) -> list[str]:
    """The arguments of a framework's own layer that would be an `OptionError`."""
    known = {"self", "kernel_size", *LayerOptions.__annotations__, *native.own, *native.refused}
    known |= {name for name in SYNONYMS if name in native.order}
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [p.name for p in inspect.signature(own).parameters.values() if p.kind not in kinds and p.name not in known]


def positional(own: Callable[..., Any]) -> list[str]:
    """The names of the positional arguments of a framework's own layer, in order."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [p.name for p in inspect.signature(own).parameters.values() if p.kind is kind and p.name != "self"]
