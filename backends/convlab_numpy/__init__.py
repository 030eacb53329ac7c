"""convlab on NumPy: plain, readable, computed in float64. The oracle that the other backends are tested against."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np

from convlab.contract import Adapter, is_instance

if TYPE_CHECKING:
    from convlab.lab import Backend

    from .layers import Conv2D as _Conv2D

    class _Lab(Backend):
        Conv2D: type[_Conv2D]  # type: ignore[assignment]

    lab: _Lab

# Without ml_dtypes there are no arrays of bfloat16.
_HALF = ("float16", "bfloat16") if importlib.util.find_spec("ml_dtypes") else ("float16",)

adapter = Adapter(
    name="numpy",
    package="convlab_numpy",
    frameworks=("numpy",),
    is_native=lambda x: isinstance(x, (np.ndarray, np.generic)),
    minimum="1.23",
    dtypes=(*_HALF, "float32", "float64", "complex64", "complex128"),
    algorithms=("native", "taps", "matmul", "fft", "separable"),
    models=True,
    is_model=lambda model: is_instance(model, "convlab_numpy.layers", "Conv2D"),
    autograd=False,
    second_derivatives=False,
    install=("numpy",),
)
