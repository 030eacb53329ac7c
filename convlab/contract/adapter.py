"""`Adapter`: what a backend says of itself before its framework is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..geometry.geometry import DataFormat
from .rule import Algorithm


@dataclass(frozen=True)
class Adapter:
    """What an adapter says about itself without importing its framework.

    Attributes:
        name: the backend's name, the same as its entry point's.
        package: the adapter's import package.
        frameworks: import names that must be there, the framework's own first.
        aliases: other names that people use for it, in lower case, such as "pytorch".
        is_native: whether an object is a tensor of this framework; must not import it.
        minimum: the least version of the framework that works, as "major.minor".
        dtypes: the floating and complex dtypes it computes in (integers are computed everywhere).
        autograd: whether results carry gradients.
        second_derivatives: whether gradients can be differentiated again.
        algorithms: those of `convlab.contract.rule.ALGORITHMS` for which it has the operations.
        image_layout: the layout that its convolution likes best for single-channel images.
        install: pip arguments that install it; by default the requirements of convlab's extra of that name.
        extras: further modules of the package reachable as attributes of the backend (`lab.nnx`).
        models: whether it has a module `models` (`convlab.models.adapters`).
        is_model: whether an object is a layer or a model of this framework; must not import it.
        extra_of: to which of `extras` such a layer or model belongs; "" for the framework's own.
        wraps: whether its arrays are made of pieces that another backend computes: the one that `backend=` names, else
            the default one (`convlab.registry.inner_backend`).
    """

    name: str
    package: str
    frameworks: tuple[str, ...]
    is_native: Callable[[object], bool]
    minimum: str
    dtypes: tuple[str, ...]
    autograd: bool = True
    second_derivatives: bool = True
    algorithms: tuple[Algorithm, ...] = ("native", "taps")
    image_layout: DataFormat = "NCHW"
    install: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    models: bool = False
    is_model: Callable[[object], bool] = lambda model: False
    extra_of: Callable[[object], str] = lambda model: ""
    wraps: bool = False


def is_instance(x: object, module: str, *names: str) -> bool:
    """Whether x is an instance of `module.name` for one of the dotted names, without importing anything.

    >>> import numpy as np
    >>> is_instance(np.zeros(3), "numpy", "ndarray"), is_instance(3, "a_module_not_imported", "T")
    (True, False)
    """
    root = sys.modules.get(module)
    for name in names:
        candidate: Any = root
        for part in name.split("."):
            candidate = getattr(candidate, part, None)
        if isinstance(candidate, type) and isinstance(x, candidate):
            return True
    return False
