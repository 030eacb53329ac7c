"""convlab on MXNet 1.9.1, whatever the NumPy."""

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
    """Whether x is an MXNet array (`mx.np` or `mx.nd`) or symbol; imports nothing."""
    return is_instance(x, "mxnet", "nd.NDArray", "sym.Symbol")


adapter = Adapter(
    name="mxnet",
    aliases=("gluon", "mx"),
    package="convlab_mxnet",
    frameworks=("mxnet",),
    is_native=is_native,
    minimum="1.9",
    dtypes=("float16", "float32", "float64"),
    models=True,
    is_model=lambda model: is_instance(model, "mxnet", "gluon.Block"),
    algorithms=("native", "taps", "phase", "separable"),
    second_derivatives=False,  # its convolution's gradient has no gradient
    # Its metadata asks for a NumPy that the others can't use; Python 3.12 has no distutils.
    install=("--no-deps", "mxnet==1.9.1", "requests", "setuptools"),
)
