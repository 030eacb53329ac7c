"""convlab: one convolution, four frameworks, identical results.

>>> import convlab
>>> convlab.corr2d([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], [[1.0, -1.0]])
array([[-1., -1.],
       [-1., -1.]], dtype=float32)

`from convlab import torch as lab` (or mxnet, jax, tensorflow, numpy) binds the same functions to a framework.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import chapter, errors, filters
from .correlation.corr2d import conv2d, corr2d
from .correlation.explain import plan
from .correlation.matrix import corr2d_matrix, im2col
from .correlation.transposed import conv_transpose2d
from .geometry.lower import output_shape
from .geometry.receptive import ReceptiveField, receptive_field
from .lab import Backend, Conv2D, backend, use_backend
from .registry import adapters

if TYPE_CHECKING:
    from convlab_dask import lab as dask
    from convlab_jax import lab as jax
    from convlab_mxnet import lab as mxnet
    from convlab_numpy import lab as numpy
    from convlab_tensorflow import lab as tensorflow
    from convlab_torch import lab as torch

    from . import plot, testing
    from .learning.learn_kernel import learn_kernel
    from .learning.run import LearnedKernel
    from .models.compare.compare import compare
    from .models.compare.comparison import Comparison
    from .models.files.save_load import load, save
    from .models.port.port import Ported, port
    from .models.port_weights import port_weights

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "Comparison",
    "Conv2D",
    "LearnedKernel",
    "Ported",
    "ReceptiveField",
    "adapters",
    "backend",
    "chapter",
    "compare",
    "conv2d",
    "conv_transpose2d",
    "corr2d",
    "corr2d_matrix",
    "errors",
    "filters",
    "im2col",
    "learn_kernel",
    "load",
    "output_shape",
    "plan",
    "plot",
    "port",
    "port_weights",
    "receptive_field",
    "save",
    "testing",
    "use_backend",
]

_LATER = {
    "plot": "plot",
    "testing": "testing",
    "learn_kernel": "learning.learn_kernel",
    "LearnedKernel": "learning.run",
    "port": "models.port.port",
    "Ported": "models.port.port",
    "compare": "models.compare.compare",
    "Comparison": "models.compare.comparison",
    "port_weights": "models.port_weights",
    "save": "models.files.save_load",
    "load": "models.files.save_load",
}


def __getattr__(name: str) -> Any:
    """Backends and all else that is loaded on first use: `from convlab import torch`."""
    if name in _LATER:
        module = import_module(f".{_LATER[name]}", __name__)
        return module if name == _LATER[name] else globals().setdefault(name, getattr(module, name))
    if not name.startswith("_"):
        with suppress(errors.UnknownBackendError):
            return globals().setdefault(name, backend(name))
    raise AttributeError(f"module 'convlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is there already, what is loaded on first use, and the backends; no framework is imported for it."""
    return sorted({*globals(), *_LATER, *adapters()})
