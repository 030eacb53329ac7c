"""convlab on JAX and Flax."""

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
    """Whether x is a JAX array or tracer, or a `flax.nnx.Variable` that holds one; imports nothing."""
    return is_instance(x, "jax", "Array") or is_instance(x, "flax.nnx", "Variable")


def _is_nnx(model: object) -> bool:
    return is_instance(model, "flax.nnx", "Module")


adapter = Adapter(
    name="jax",
    aliases=("flax", "linen", "flax.linen", "jnp"),
    package="convlab_jax",
    frameworks=("jax", "flax"),
    is_native=is_native,
    minimum="0.8",
    dtypes=("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    models=True,
    is_model=lambda model: is_instance(model, "flax.linen", "Module") or _is_nnx(model),
    extra_of=lambda model: "nnx" if _is_nnx(model) else "",
    algorithms=("native", "taps", "phase", "fft"),
    image_layout="NHWC",
    extras=("nnx",),
)
