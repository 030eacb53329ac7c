"""convlab on Dask: images larger than memory, in chunks that another backend computes, lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convlab.contract.adapter import Adapter, is_instance

if TYPE_CHECKING:
    from convlab.lab import Backend

    from .layers import Conv2D as _Conv2D

    class _Lab(Backend):
        Conv2D: type[_Conv2D]

    lab: _Lab

adapter = Adapter(
    name="dask",
    package="convlab_dask",
    frameworks=("dask",),
    is_native=lambda x: is_instance(x, "dask.array", "Array"),
    minimum="2024.8",
    dtypes=("float16", "float32", "float64", "complex64", "complex128"),
    autograd=False,
    second_derivatives=False,
    wraps=True,
)
