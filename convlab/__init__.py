"""convlab: one convolution, four frameworks, identical results.

>>> import convlab
>>> convlab.corr2d([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], [[1.0, -1.0]])
array([[-1., -1.],
       [-1., -1.]], dtype=float32)

`from convlab import torch as lab` (or mxnet, jax, tensorflow, numpy) binds the same functions to a framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors
from .registry import adapters, backend, use_backend

if TYPE_CHECKING:
    from convlab_jax import lab as jax
    from convlab_mxnet import lab as mxnet
    from convlab_numpy import lab as numpy
    from convlab_tensorflow import lab as tensorflow
    from convlab_torch import lab as torch

    from . import chapter, filters, testing
    from .corr import conv2d, corr2d
    from .geometry import output_shape
    from .lab import Backend
    from .layers import Conv2D
    from .learn import LearnedKernel, learn_kernel
    from .matrix import corr2d_matrix, im2col
    from .receptive import ReceptiveField, receptive_field

__version__ = "0.1.0"

# Public name -> the module that holds it; loaded on first use, so that `import convlab` costs next to nothing.
_HOMES = {
    "Backend": "lab",
    "Conv2D": "layers",
    "LearnedKernel": "learn",
    "ReceptiveField": "receptive",
    "conv2d": "corr",
    "corr2d": "corr",
    "corr2d_matrix": "matrix",
    "im2col": "matrix",
    "learn_kernel": "learn",
    "output_shape": "geometry",
    "receptive_field": "receptive",
}
_MODULES = ("chapter", "filters", "testing")

__all__ = [
    "Backend",
    "Conv2D",
    "LearnedKernel",
    "ReceptiveField",
    "adapters",
    "backend",
    "chapter",
    "conv2d",
    "corr2d",
    "corr2d_matrix",
    "errors",
    "filters",
    "im2col",
    "learn_kernel",
    "output_shape",
    "receptive_field",
    "testing",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    elif not name.startswith("_") and name in adapters():
        value = backend(name)
    else:
        raise AttributeError(f"module 'convlab' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
