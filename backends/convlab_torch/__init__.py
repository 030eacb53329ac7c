"""convlab on PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convlab.contract.adapter import Adapter, is_instance

if TYPE_CHECKING:
    from convlab.lab import Backend

    from .layers import Conv2D as _Conv2D

    class _Lab(Backend):
        Conv2D: type[_Conv2D]

    lab: _Lab


def is_native(x: object) -> bool:
    """Whether x is a torch tensor or parameter; imports nothing."""
    return is_instance(x, "torch", "Tensor")


adapter = Adapter(
    name="torch",
    aliases=("pytorch",),
    package="convlab_torch",
    frameworks=("torch",),
    is_native=is_native,
    minimum="2.5",
    dtypes=("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    models=True,
    is_model=lambda model: is_instance(model, "torch", "nn.Module"),
    algorithms=("native", "taps", "phase", "fft", "separable"),
)
